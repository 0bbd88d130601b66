//! `wharfd`: the supervisor as a daemon.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("wharfd does not serve yet")
}
