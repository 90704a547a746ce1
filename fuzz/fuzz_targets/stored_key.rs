#![no_main]

drover_fuzz::target!("stored_key");
