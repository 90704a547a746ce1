#![no_main]

drover_fuzz::target!("group_state");
