#![no_main]

drover_fuzz::target!("link_frame");
