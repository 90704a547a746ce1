#![no_main]

drover_fuzz::target!("copied_row");
