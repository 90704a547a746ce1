#![no_main]

drover_fuzz::target!("tracker_row");
