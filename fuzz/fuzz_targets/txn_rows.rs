#![no_main]

drover_fuzz::target!("txn_rows");
