#![no_main]

drover_fuzz::target!("memcomparable");
