#![no_main]

drover_fuzz::target!("applied_state");
