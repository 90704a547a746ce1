#![no_main]

drover_fuzz::target!("escaped_text");
