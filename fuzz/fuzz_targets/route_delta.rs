#![no_main]

drover_fuzz::target!("route_delta");
