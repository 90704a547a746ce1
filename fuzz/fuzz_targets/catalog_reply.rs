#![no_main]

drover_fuzz::target!("catalog_reply");
