#![no_main]

drover_fuzz::target!("cursor");
