use super::*;

fn count<V>(memory: &Memory<u64, V>) -> usize {
    memory.young.entries.len() + memory.old.entries.len()
}

#[test]
fn memory_is_bounded_and_keeps_what_is_asked_for() {
    let mut memory = Memory::new(100, usize::MAX);
    memory.remember(0, "kept", 0);
    for key in 1..1000 {
        memory.remember(key, "x", 0);
        assert_eq!(memory.recall(&0), Some("kept"));
        assert!(count(&memory) <= 100);
    }
    assert_eq!(memory.recall(&1), None);
}

#[test]
fn memory_is_bounded_by_weight_too() {
    let mut memory = Memory::new(usize::MAX, 1000);
    memory.remember(0, "kept", 100);
    for key in 1..1000 {
        memory.remember(key, "x", 30);
        assert_eq!(memory.recall(&0), Some("kept"));
        let weights = [&memory.young, &memory.old].map(|generation| {
            let sum: usize = generation.entries.values().map(|(_, weight)| weight).sum();
            assert_eq!(sum, generation.weight);
            sum
        });
        assert!(weights[0] + weights[1] <= 1000);
    }
    assert!(count(&memory) > 10);
}

#[test]
fn what_outweighs_the_rest_displaces_nothing_and_a_replaced_value_weighs_nothing() {
    let mut memory = Memory::new(usize::MAX, 1000);
    memory.remember(1, "x", 400);
    memory.remember(2, "heavy", 501);
    assert_eq!(memory.recall(&2), None);
    memory.remember(1, "y", 50);
    memory.remember(3, "z", 400);
    assert_eq!(memory.young.weight, 450);
    assert_eq!((memory.recall(&1), memory.recall(&3)), (Some("y"), Some("z")));
}
