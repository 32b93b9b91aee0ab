//! Requests that go out while answers are waited for: all of them do, however full the socket is.

use super::*;
use crate::client::stream::pair;

#[tokio::test]
async fn what_is_to_be_sent_is_sent_to_its_last_byte_while_nothing_comes() {
    for is_tls in [false, true] {
        // Of many lengths, the last bytes of some find the socket full.
        for len in (500_000..4_000_000).step_by(70_001) {
            let (stream, mut server) = pair(is_tls).await;
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let seconds = Duration::from_secs(10);
            let mut link = Link {
                stream,
                peer,
                patience: Patience { timeout: seconds, wait_max: seconds },
                requests: 1,
                requester: Requester::new(),
                input: BytesMut::new(),
                read_ahead: V2_INPUT,
                outgoing: BytesMut::zeroed(len),
                arrived: Arc::default(),
            };
            let hearing = async {
                let mut got = BytesMut::new();
                while got.len() < len {
                    got.reserve(V2_INPUT);
                    assert!(server.read_buf(&mut got, V2_INPUT).await.unwrap() > 0);
                }
                // Only now the server says something.
                server.write_all(b"answer").await.unwrap();
                server
            };
            let both = async { tokio::join!(link.talk(), hearing) };
            let (heard, _server) = timeout(seconds, both).await.unwrap_or_else(|_| panic!("{is_tls} {len}"));
            assert_eq!(heard.unwrap(), 6);
        }
    }
}
