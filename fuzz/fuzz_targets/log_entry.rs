#![no_main]

drover_fuzz::target!("log_entry");
