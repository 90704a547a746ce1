#![no_main]

drover_fuzz::target!("known_nodes");
