use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use super::*;
use crate::error::Code;
use crate::service::uploads::tests::{Site, TIME, file, names_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_stored_is_whole_and_as_it_was_announced() {
    let site = Site::new(&[None], None);
    for (name, bytes) in [("a", &b"bytes"[..]), ("sub/of/b", b""), ("large", &[7; 1 << 20])] {
        let stored = site.store(name, file(bytes)).await.unwrap();
        assert_eq!(stored, Stored::New(Root::of(bytes)));
        let path = site.path().join(name);
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (TIME.0, i64::from(TIME.1)));
        assert_eq!(found.permissions().mode() & 0o777, 0o640);
    }
    assert_eq!(names_in(site.path()), ["a", "large", "sub"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_do_not_make_the_root_are_not_stored() {
    let site = Site::new(&[None], None);
    for size in [0_usize, 5, 100_000] {
        let wrong = WholeFile { root: Root::of(b"other"), ..file(vec![1; size]) };
        let error = site.store("a", wrong).await.unwrap_err();
        assert_eq!(error.code(), Code::Checksum);
    }
    assert_eq!(names_in(site.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_at_once_are_stored_and_those_that_cannot_fail_alone() {
    let site = Site::new(&[None], None);
    fs::create_dir(site.path().join("folder")).unwrap();
    for name in ["there", "same", "older"] {
        site.store(name, file("old")).await.unwrap();
    }
    let names = (0..300).map(|number| format!("{}/{number}", number % 7)).collect::<Vec<_>>();
    let good = names.iter().map(|name| site.store(name, file(name)));
    let always = |text: &str| WholeFile { replace: true, ..file(text) };
    let odd = async {
        tokio::join!(
            site.store("folder", always("x")),
            site.store("there", file("new")),
            site.store("same", WholeFile { unless_same: true, ..file("old") }),
            site.store("older", always("new")),
            site.store("there/beneath", file("x")),
        )
    };
    let (good, odd) = tokio::join!(join_all(good), odd);
    for (stored, name) in good.into_iter().zip(&names) {
        assert_eq!(stored.unwrap(), Stored::New(Root::of(name.as_bytes())));
        assert_eq!(&fs::read_to_string(site.path().join(name)).unwrap(), name);
    }
    assert_eq!(odd.0.unwrap_err().code(), Code::Exists);
    assert_eq!(odd.1.unwrap_err().code(), Code::Exists);
    assert_eq!(odd.2.unwrap(), Stored::Same);
    assert_eq!(odd.3.unwrap(), Stored::New(Root::of(b"new")));
    assert!(odd.4.is_err());
    assert_eq!(fs::read_to_string(site.path().join("there")).unwrap(), "old");
    assert_eq!(fs::read_to_string(site.path().join("older")).unwrap(), "new");
    for folder in ["", "0", "1"] {
        assert!(names_in(&site.path().join(folder)).iter().all(|name| !name.starts_with(".oneport-")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_that_failed_nobody_is_told_stored_and_nothing_is_left() {
    let site = Site::new(&[Some(100)], None);
    site.store("old", file("old")).await.unwrap();
    for names in [&["old"][..], &["old", "new", "sub/new"]] {
        let mut batch = Batch::new(&site.service.inner.wholes.names);
        let mut told = Vec::new();
        for name in names {
            let (reply, answer) = oneshot::channel();
            let permit = site.permit(name);
            let reservation = Ok(site.service.admit(&permit, 3).await.unwrap());
            let claim = site.service.inner.busy.claim(permit.name()).unwrap();
            let room = site.service.room(3).await;
            let file = WholeFile { replace: true, ..file("new") };
            let wanted = Wanted { permit, file, reservation, asker: Asker { reply, claim }, room };
            assert!(batch.stage(&site.service.inner, wanted).is_none());
            told.push(answer);
        }
        batch.break_flush();
        batch.commit(&site.service.inner);
        for answer in told {
            let error = answer.await.unwrap().unwrap_err();
            assert_eq!(
                (error.code(), error.text().as_str()),
                (Code::LocalIo, "the server cannot store it now")
            );
        }
        assert_eq!(names_in(site.path()), ["old"], "nothing hidden, and no folder that was made for nothing");
        assert_eq!(fs::read_to_string(site.path().join("old")).unwrap(), "old");
        assert_eq!(site.sums(), (3, 0), "what was reserved is given back");
    }
    // The next one is stored as if nothing had been.
    site.store("new", file("new")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_more_folders_than_may_be_open_are_all_stored() {
    let site = Site::new(&[None], None);
    let names: Vec<String> = (0..3 * crate::limits::GROUP_FOLDERS_MAX).map(|at| format!("{at}/f")).collect();
    let stored = join_all(names.iter().map(|name| site.store(name, file(name)))).await;
    assert!(stored.into_iter().all(|stored| stored.is_ok()));
    for name in &names {
        assert_eq!(&fs::read_to_string(site.path().join(name)).unwrap(), name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_has_one_writer_at_a_time_and_is_free_when_that_was_told() {
    let site = Site::new(&[None], None);
    let claim = site.service.inner.busy.claim(site.permit("a").name()).unwrap();
    assert!(matches!(site.store("a", file("x")).await, Err(UploadError::Busy)));
    drop(claim);
    for round in 0..50 {
        let next = WholeFile { replace: true, ..file(format!("{round}")) };
        site.store("a", next).await.unwrap();
    }
    assert_eq!(fs::read_to_string(site.path().join("a")).unwrap(), "49");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_stored_already_is_waited_for_and_another_one_is_not() {
    let site = Site::new(&[None, None], None);
    let permit = site.permit("a");
    let same = (permit.caller().key_id(), file("x").root);
    let claim = site.service.inner.busy.claim_whole(permit.name(), same).await.unwrap();
    assert!(matches!(site.store("a", file("other")).await, Err(UploadError::Busy)));
    assert!(matches!(site.store_as(1, "a", file("x")).await, Err(UploadError::Busy)), "another key's");
    let mut again = Box::pin(site.store("a", file("x")));
    assert!(futures_ready(&mut again).is_none());
    drop(claim);
    assert_eq!(again.await.unwrap(), Stored::New(file("x").root));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_finds_no_room_waits_until_files_were_staged() {
    let site = Site::new(&[None], None);
    let most = u64::from(WHOLE_WAITING_BYTES);
    let all = site.service.room(most).await;
    let mut waiting = Box::pin(site.service.room(1));
    assert!(futures_ready(&mut waiting).is_none());
    drop(all);
    drop(waiting.await);
}

/// 10,000 files of 4 KiB, as two connections put them; a measurement, for a machine that has nothing else to do.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn ten_thousand_small_files() {
    const GOAL: Duration = Duration::from_millis(700);
    let site = Site::new(&[None], None);
    let names: Vec<String> = (0..10_000).map(|number| format!("folder/{number}")).collect();
    let began = Instant::now();
    for names in names.chunks(2048) {
        let stored = join_all(names.iter().map(|name| site.store(name, file([1; 4096])))).await;
        assert!(stored.into_iter().all(|stored| stored.is_ok()));
    }
    let in_lots = began.elapsed();
    let site = Site::new(&[None], None);
    let began = Instant::now();
    let stored = join_all(names.iter().map(|name| site.store(name, file([1; 4096])))).await;
    assert!(stored.into_iter().all(|stored| stored.is_ok()));
    let at_once = began.elapsed();
    assert!(in_lots.max(at_once) < GOAL, "in lots of 2,048: {in_lots:?}, all at once: {at_once:?}");
}

async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

fn futures_ready<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
