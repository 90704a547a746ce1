#![no_main]

drover_fuzz::target!("catalog_command");
