#![no_main]

drover_fuzz::target!("record_key");
