#![no_main]

drover_fuzz::target!("store_format");
