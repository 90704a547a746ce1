#![no_main]

drover_fuzz::target!("timeout_header");
