#![no_main]

drover_fuzz::target!("session_request");
