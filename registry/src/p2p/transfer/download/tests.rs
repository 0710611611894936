use futures::stream;
use kadence_smol::SmolRuntime;
use libp2p_stream::Behaviour;

use super::*;
use crate::{ContentId, blob::BlobStore};

#[test]
fn attack_events_of_a_damaged_file_do_not_count_for_the_next_one() {
    smol::block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::open(folder.path()).unwrap();
        let id = ContentId::of(&[1; 100_000]);
        let config = FetchConfig { piece_groups: 4, ..FetchConfig::default() };
        // Two damaged pieces of an earlier run.
        let (partial, _) = Partial::open(&store, &id, 100_000, config.piece_bytes()).unwrap();
        partial.write(0, 0, &[2; 65_536], &[]).unwrap();
        partial.write(1, 65_536, &[2; 34_464], &[]).unwrap();
        drop(partial);
        let control = Behaviour::new().new_control();
        let clock = Clock::new(&SmolRuntime::default());
        let context = FetchContext { control, store, clock, config, dial_lock: DialLock::default() };
        let request = FetchRequest { id, max: 1 << 20, size: None };
        let deadline = context.clock.now() + Duration::from_secs(60);
        let providers = Box::pin(stream::pending());
        let mut download = Download::new(&context, request, deadline, providers, Arc::new(|_| {}));
        download.open(100_000, false).await.unwrap();
        assert!(download.is_complete());
        // A second provider was fetching a piece that the first one has completed.
        download.events.0.try_send((PeerId::random(), WorkerEvent::Piece { piece: 1, bytes: 34_464 })).unwrap();
        assert_eq!(download.finish().await.unwrap(), None);
        assert!(!download.is_complete());
        assert!(download.events.1.is_empty(), "the new file would have a hole");
    });
}
