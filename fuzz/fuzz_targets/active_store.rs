#![no_main]

drover_fuzz::target!("active_store");
