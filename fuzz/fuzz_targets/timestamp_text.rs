#![no_main]

drover_fuzz::target!("timestamp_text");
