#![no_main]

drover_fuzz::target!("peer_identities");
