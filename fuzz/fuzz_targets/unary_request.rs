#![no_main]

drover_fuzz::target!("unary_request");
