#![no_main]

drover_fuzz::target!("outcome_record");
