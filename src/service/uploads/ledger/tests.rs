use std::fs;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::error::Code;
use crate::service::uploads::tests::{Site, file};
use crate::service::uploads::{Stored, WholeFile};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_at_the_same_time_fill_a_quota_exactly_and_never_exceed_it() {
    const QUOTA: u64 = 640;
    let site = Arc::new(Site::new(&[Some(QUOTA)], None));
    let most = Arc::new(AtomicU64::new(0));
    let uploads: Vec<_> = (0..128)
        .map(|number| {
            let (site, most) = (Arc::clone(&site), Arc::clone(&most));
            tokio::spawn(async move {
                let stored = site.store(&format!("{number}"), file([1; 10])).await;
                most.fetch_max(site.sums().0, Ordering::Relaxed);
                stored
            })
        })
        .collect();
    let sampled = tokio::spawn({
        let (site, most) = (Arc::clone(&site), Arc::clone(&most));
        async move {
            for _ in 0..20_000 {
                most.fetch_max(site.sums().0, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let mut stored = 0;
    for upload in uploads {
        match upload.await.unwrap() {
            Ok(Stored::New(_)) => stored += 1,
            Err(UploadError::Quota { needed: 10, left: 0 }) => {}
            other => panic!("{other:?}"),
        }
    }
    sampled.await.unwrap();
    assert_eq!(stored, 64, "the quota is filled");
    assert_eq!(most.load(Ordering::Relaxed), QUOTA, "and never exceeded");
    assert_eq!(site.sums(), (QUOTA, 0));
    let on_disk: u64 = fs::read_dir(site.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(on_disk, QUOTA);
    assert_eq!(site.catalog.owned_bytes(&site.keys[0]), Ok(QUOTA));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_counts_until_it_is_given_back() {
    let site = Site::new(&[Some(100)], None);
    let reserved = site.service.admit(&site.permit("a"), 60).await.unwrap();
    let refused = site.service.admit(&site.permit("b"), 41).await.err().unwrap();
    assert!(matches!(refused, UploadError::Quota { needed: 41, left: 40 }), "{refused}");
    assert_eq!(refused.code(), Code::Limit);
    let more = site.service.admit(&site.permit("b"), 40).await.unwrap();
    drop((reserved, more));
    assert_eq!(site.sums(), (0, 0));
    let too_large = site.service.admit(&site.permit("a"), u64::MAX).await.err().unwrap();
    assert!(matches!(too_large, UploadError::Quota { left: 100, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_counts_until_the_new_one_is_there() {
    let site = Site::new(&[Some(100), None], None);
    site.store("a", file([1; 60])).await.unwrap();
    let replace = |size: usize| WholeFile { replace: true, ..file(vec![2; size]) };
    assert!(matches!(site.store("a", replace(41)).await, Err(UploadError::Quota { needed: 41, left: 40 })));
    site.store("a", replace(40)).await.unwrap();
    assert_eq!(site.sums(), (40, 0));
    // Who replaces another one's file has it from then on.
    site.store_as(1, "a", replace(1000)).await.unwrap();
    assert_eq!(site.sums(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_does_not_matter_to_a_file_that_is_there_already() {
    let site = Site::new(&[Some(60)], None);
    site.store("a", file([1; 60])).await.unwrap();
    let again = || WholeFile { unless_same: true, replace: true, ..file([1; 60]) };
    assert_eq!(site.store("a", again()).await.unwrap(), Stored::Same);
    assert!(matches!(site.store("b", again()).await, Err(UploadError::Quota { .. })));
    assert_eq!(site.sums(), (60, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_or_renamed_by_the_server_or_behind_its_back_is_free_again() {
    let site = Site::new(&[Some(100)], None);
    for name in ["d/a", "d/b", "e"] {
        site.store(name, file([1; 20])).await.unwrap();
    }
    let name = |text: &str| FileName::parse(text.as_bytes()).unwrap();
    fs::rename(site.path().join("d"), site.path().join("f")).unwrap();
    site.service.note_renamed(&name("d"), &name("f"));
    assert_eq!(site.sums(), (60, 0));
    fs::remove_file(site.path().join("f/a")).unwrap();
    site.service.note_removed(&name("f/a"));
    assert_eq!(site.sums(), (40, 0));
    // Nobody tells the server of these two; what is left unreadable is there all the same.
    fs::remove_file(site.path().join("f/b")).unwrap();
    site.store("secret", WholeFile { mode: 0, ..file([1; 20]) }).await.unwrap();
    assert_eq!(site.sums(), (60, 0));
    site.store("g", file([1; 60])).await.unwrap();
    assert_eq!(site.sums(), (100, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_catalog_cannot_be_written_only_keys_with_a_quota_are_refused_and_nothing_is_forgotten() {
    let site = Site::new(&[Some(100), None], None);
    site.store("a", file([1; 10])).await.unwrap();
    let breaks = |is_broken| *site.catalog.1.lock().unwrap() = is_broken;
    // It breaks between the reservation and the end.
    let reserved = site.service.admit(&site.permit("b"), 20).await.unwrap();
    breaks(true);
    let error = site.service.note_stored(&site.permit("b"), 20, reserved).unwrap_err();
    assert!(matches!(error, UploadError::Catalog(_)), "{error}");
    assert_eq!(site.sums(), (30, 20), "it is there, and counts");
    assert!(matches!(site.store("c", file([1; 10])).await, Err(UploadError::Catalog(_))));
    site.store_as(1, "other", file([1; 10])).await.unwrap();
    breaks(false);
    site.store("c", file([1; 70])).await.unwrap();
    assert_eq!(site.sums(), (100, 0));
    assert_eq!(site.catalog.owned_bytes(&site.keys[0]), Ok(100));
    assert_eq!(site.catalog.owned_bytes(&site.keys[1]), Ok(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_large_is_refused_before_anything_else() {
    let site = Site::new(&[None], Some(10));
    assert!(matches!(site.store("a", file([1; 11])).await, Err(UploadError::TooLarge { size: 11, max: 10 })));
    site.store("a", file([1; 10])).await.unwrap();
}
