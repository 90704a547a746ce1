#![no_main]

drover_fuzz::target!("raftlog_mark");
