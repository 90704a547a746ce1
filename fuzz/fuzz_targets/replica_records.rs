#![no_main]

drover_fuzz::target!("replica_records");
