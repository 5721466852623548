//! The state folder on a file system that is full: what could not be kept is told and tried again, and nothing rests on it.

use std::{
    fs,
    io::ErrorKind,
    thread,
    time::{Duration, Instant},
};

use netkeel_agent::{agent::Change, last_known};
use netkeel_client::Event;
use netkeel_crds::node_network::BlockRelease;
use nix::mount::{MsFlags, mount};

use super::{lab::isolated, node, stop, until_policed, up, work};

/// The node is to give its block back.
fn marked() -> (BlockRelease, Change) {
    let mut node = node(1, "Active");
    let mark = BlockRelease { cidr: node.spec.blocks[0], ticket: "7".to_owned() };
    node.spec.releasing = vec![mark.clone()];
    "r2".clone_into(&mut node.spec.revision);
    (mark, Change::Node(Event::Apply(node)))
}

#[test]
fn nodes_that_a_full_disk_does_not_keep_are_tried_again_and_no_block_is_given_back_before() {
    isolated(|lab| {
        let state = &lab.config.state_folder;
        mount(Some("tmpfs"), state, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).expect("a disk");
        let (mut agent, _server) = up(lab);
        assert_eq!(until_policed(&mut agent).notes, [""; 0]);
        let filler = state.join("filler");
        let full = fs::write(&filler, vec![1; 1 << 20]).expect_err("the disk is smaller");
        assert_eq!(full.kind(), ErrorKind::StorageFull);

        let (mark, change) = marked();
        agent.take(change);
        work(&mut agent, Duration::ZERO);
        let start = Instant::now();
        while agent.pool().released().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(5), "the pool does not hear of the mark");
            thread::sleep(Duration::from_millis(2));
        }
        agent.blocks_changed();
        let report = work(&mut agent, Duration::ZERO);
        assert!(report.problems.is_empty() && report.revision.as_deref() == Some("r2"), "{report:?}");
        let told = "write /mnt/state/node-network.json: what was known before a restart may be lost";
        assert!(report.notes[0].starts_with(told), "{:?}", report.notes);
        assert_eq!(report.released, [], "the disk does not know of the mark");

        fs::remove_file(filler).expect("it is there");
        let report = work(&mut agent, Duration::from_secs(31));
        assert_eq!((report.notes, report.released), (vec![], vec![mark.clone()]));
        let kept = last_known::read(state).expect("nodes");
        assert!(kept.iter().any(|node| node.spec.releasing == [mark.clone()]), "{kept:?}");
        stop(agent);
    });
}
