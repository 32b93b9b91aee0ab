//! Requests that go out while answers are waited for: all of them do, however full the socket is.

use std::time::Duration;

use super::*;
use crate::client::stream::pair;

#[tokio::test]
async fn what_the_socket_had_no_room_for_is_sent_while_an_answer_is_waited_for() {
    let (mut stream, mut server) = pair(true).await;
    let mut len = 0;
    // Nobody reads, so one of these finds the socket full in its middle.
    while !stream.has_unsent() {
        len += stream.try_write(&[7; 10_000]).unwrap();
    }
    let patience = Patience { timeout: Duration::from_secs(10), wait_max: Duration::from_secs(10) };
    let mut link = Link {
        stream,
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        patience,
        requests: 1,
        requester: Requester::new(),
        input: BytesMut::new(),
        read_ahead: V2_INPUT,
        outgoing: BytesMut::new(),
        arrived: Arc::default(),
    };
    let hearing = async {
        let mut got = BytesMut::new();
        while got.len() < len {
            assert!(server.read_buf(&mut got, V2_INPUT).await.unwrap() > 0);
        }
        // Only now the server says something.
        server.write_all(b"answer").await.unwrap();
        server
    };
    let both = async { tokio::join!(link.talk(), hearing) };
    let (heard, _server) = timeout(patience.timeout, both).await.unwrap();
    assert_eq!(heard.unwrap(), 6);
}
