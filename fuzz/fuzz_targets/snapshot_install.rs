#![no_main]

drover_fuzz::target!("snapshot_install");
