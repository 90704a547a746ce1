#![no_main]

drover_fuzz::target!("data_key");
