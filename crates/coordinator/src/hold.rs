use std::time::Duration;

use drover_guards::{CrashPoint, HELD_WORDS, crashes_are_possible, is_held_at};

/// Between the first two looks at whether a test lets go on who waits; then twice as long each time.
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// Thousands may wait at one point.
const LAST_LOOK: Duration = Duration::from_millis(512);

/// Waits for as long as a test wants that here: for those who drive transactions and moves.
pub async fn hold_if_asked(point: impl Into<CrashPoint>) {
    let point = point.into();
    if !crashes_are_possible() || !is_held_at(point) {
        return;
    }
    // In one piece, as the last words of a process. A test takes it for the proof that somebody waits.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{HELD_WORDS}{point}\n").as_bytes());
    let mut pause = FIRST_LOOK;
    while is_held_at(point) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}
