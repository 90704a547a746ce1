#![no_main]

drover_fuzz::target!("route_event");
