//! Exact budgets, gradients against differences, and rankings against sorting everything.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::bpr::{Slopes, Triple, accumulate};
use super::implicit::{Choices, Size};
use super::light_gcn::{self, Graph};
use super::ranking::{Ranked, Scorer, evaluate, top};
use super::table::{Growth, Learned, SparseTable};
use super::train::{Exploration, Options, Recommender};

const SMALL: Size = Size { users: 120, items: 200, genres: 8, choices: 20, taste: 6.0, skew: 0.6 };

fn random() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

#[test]
fn rows_and_columns_are_those_of_the_whole_table() {
    let table = SparseTable::random(9, 16, 50, 1.0, &mut random());
    assert_eq!((table.stored(), table.places().count()), (50, 50));
    let dense = table.dense();
    assert_eq!(dense.iter().filter(|value| **value != 0.0).count(), 50);
    for row in 0..9 {
        let (columns, values) = table.row(row);
        assert!(columns.is_sorted());
        let mut own = vec![0.0; 16];
        columns.iter().zip(values).for_each(|(column, value)| own[*column as usize] = *value);
        assert_eq!(own, dense[row * 16..(row + 1) * 16]);
    }
    for (column, own) in table.by_columns().iter().enumerate() {
        let found: Vec<(u32, f32)> =
            (0..9).map(|row| (row as u32, dense[row * 16 + column])).filter(|it| it.1 != 0.0).collect();
        assert_eq!(own, &found);
    }
    assert_eq!(
        SparseTable::random(3, 4, 12, 1.0, &mut random()).places().collect::<Vec<_>>(),
        (0..12).collect::<Vec<_>>()
    );
}

/// The loss in f64 from whole tables.
fn loss(users: &[f32], items: &[f32], width: usize, triples: &[Triple], decay: f64) -> f64 {
    let row = |table: &[f32], row: u32| -> Vec<f64> {
        table[row as usize * width..][..width].iter().map(|value| f64::from(*value)).collect()
    };
    let one = |[u, i, j]: &Triple| {
        let (u, i, j) = (row(users, *u), row(items, *i), row(items, *j));
        let x: f64 = (0..width).map(|c| u[c] * (i[c] - j[c])).sum();
        let sizes: f64 = u.iter().chain(&i).chain(&j).map(|value| value * value).sum();
        (1.0 + (-x).exp()).ln() + decay / 2.0 * sizes
    };
    triples.iter().map(one).sum::<f64>() / triples.len() as f64
}

#[test]
fn gradients_of_stored_numbers_and_slopes_of_all_are_those_of_differences() {
    let width = 5;
    let mut random = random();
    let mut users = Learned::new(SparseTable::random(4, width, 9, 1.0, &mut random));
    let mut items = Learned::new(SparseTable::random(6, width, 14, 1.0, &mut random));
    let triples: Vec<Triple> = (0..20)
        .map(|_| [random.random_range(0..4), random.random_range(0..3), random.random_range(3..6)])
        .collect();
    let mut slopes = Slopes::new(&users, &items);
    let mut macs = 0;
    let (u, i) = (users.table.dense(), items.table.dense());
    let found = accumulate(&mut users, &mut items, &triples, 0.1, Some(&mut slopes), &mut macs);
    assert!((found - loss(&u, &i, width, &triples, 0.1f32.into())).abs() < 1e-6);
    let stored: usize = triples
        .iter()
        .map(|[u, i, j]| {
            let count = |table: &Learned, row: &u32| table.table.row(*row as usize).0.len();
            2 * count(&users, u) + count(&items, i) + count(&items, j)
        })
        .sum();
    assert_eq!(macs as usize, stored + 3 * width * triples.len());
    let step = 1e-3f32;
    let differences = |of_users: bool, decay: f64| -> Vec<f64> {
        (0..if of_users { u.len() } else { i.len() })
            .map(|at| {
                let moved = |by: f32| {
                    let (mut u, mut i) = (u.clone(), i.clone());
                    if of_users {
                        u[at] += by
                    } else {
                        i[at] += by
                    }
                    loss(&u, &i, width, &triples, decay)
                };
                (moved(step) - moved(-step)) / (2.0 * f64::from(step))
            })
            .collect()
    };
    for (of_users, table, slopes) in [(true, &users, &slopes.users), (false, &items, &slopes.items)] {
        let with_decay = differences(of_users, 0.1);
        for (place, gradient) in table.table.places().zip(&table.gradient) {
            assert!(
                (f64::from(*gradient) - with_decay[place]).abs() < 1e-4,
                "{place}: {gradient} {}",
                with_decay[place]
            );
        }
        let without = differences(of_users, 0.0);
        assert!(slopes.iter().any(|slope| slope.abs() > 1e-3));
        for (place, slope) in slopes.iter().enumerate() {
            assert!((f64::from(*slope) - without[place]).abs() < 1e-4, "{place}: {slope} {}", without[place]);
        }
    }
}

#[test]
fn the_smallest_leave_and_the_steepest_enter_and_the_count_stays() {
    // Two rows of four; stored are 0.5, −0.1, 0.3 and 0.05.
    let mut table = Learned::new(SparseTable::at(2, 4, &[0, 2, 5, 7]));
    table.table.values = vec![0.5, -0.1, 0.3, 0.05];
    table.m = vec![1.0, 2.0, 3.0, 4.0];
    table.v = vec![10.0, 20.0, 30.0, 40.0];
    // Places 2 and 7 leave; of the empty ones 2 and 4 are the steepest, so that 2 comes back.
    let slopes = [9.0, 0.1, -0.8, 0.2, 0.9, 9.0, 0.0, 0.7];
    let moved = table.explore(2, Growth::Gradient, &slopes, &mut random());
    assert_eq!(moved, 1);
    assert_eq!(table.table.places().collect::<Vec<_>>(), [0, 2, 4, 5]);
    assert_eq!(table.table.values, [0.5, 0.0, 0.0, 0.3]);
    assert_eq!(
        (table.m.as_slice(), table.v.as_slice()),
        (&[1.0, 0.0, 0.0, 3.0][..], &[10.0, 0.0, 0.0, 30.0][..])
    );
    // Of equal slopes the first places enter.
    let mut equal = Learned::new(SparseTable::at(1, 6, &[4, 5]));
    equal.table.values = vec![1.0, 2.0];
    equal.explore(1, Growth::Gradient, &[0.0; 6], &mut random());
    assert_eq!(equal.table.places().collect::<Vec<_>>(), [0, 5]);
    // A full table has no room.
    let mut full = Learned::new(SparseTable::random(2, 4, 8, 1.0, &mut random()));
    let before = full.table.clone();
    assert_eq!((full.explore(3, Growth::Random, &[0.0; 8], &mut random()), full.table), (0, before));
    // Nearly full: only as many can change places as there are empty ones.
    let mut nearly = Learned::new(SparseTable::random(2, 4, 7, 1.0, &mut random()));
    nearly.explore(3, Growth::Random, &[0.0; 8], &mut random());
    assert_eq!(nearly.table.stored(), 7);
    nearly.prune(3);
    assert_eq!((nearly.table.stored(), nearly.m.len(), nearly.gradient.len()), (3, 3, 3));
}

#[test]
fn pruning_keeps_the_largest_with_what_is_remembered() {
    let mut table = Learned::new(SparseTable::at(2, 4, &[0, 2, 5, 7]));
    table.table.values = vec![0.5, -0.6, 0.3, 0.05];
    table.m = vec![1.0, 2.0, 3.0, 4.0];
    table.prune(2);
    assert_eq!(table.table.places().collect::<Vec<_>>(), [0, 2]);
    assert_eq!((table.table.values, table.m), (vec![0.5, -0.6], vec![1.0, 2.0]));
}

#[test]
fn the_share_that_leaves_falls_to_nothing_and_looks_come_before() {
    let it = Exploration { every: 10, look: 3, first: 0.4, until: 0.5, ..Exploration::default() };
    assert_eq!((it.share(0, 200), it.share(5, 200), it.share(100, 200)), (None, None, None));
    let at = |step| it.share(step, 200).unwrap();
    assert!((at(50) - 0.2).abs() < 1e-12);
    assert!(at(10) > at(20) && at(90) > 0.0 && at(90) < 0.012);
    let stays = Exploration { falls: false, ..it };
    assert_eq!((stays.share(10, 200), stays.share(90, 200)), (Some(0.4), Some(0.4)));
}

#[test]
fn rankings_are_those_of_sorting_everything() {
    let mut random = random();
    let choices = Choices::generate(&SMALL, 3);
    let scores: Vec<Vec<f32>> = (0..SMALL.users)
        .map(|_| (0..SMALL.items).map(|_| (random.random::<f32>() * 30.0).floor()).collect())
        .collect();
    let found = evaluate(&choices, 20, |user, out| out.copy_from_slice(&scores[user]));
    let mut sum = Ranked::default();
    let mut users = 0.0;
    for (user, scores) in scores.iter().enumerate() {
        let mut items: Vec<u32> = (0..SMALL.items as u32).collect();
        items.sort_by(|a, b| scores[*b as usize].partial_cmp(&scores[*a as usize]).unwrap());
        items.retain(|item| !choices.seen[user].contains(item));
        items.truncate(20);
        assert_eq!(items, top(scores, &choices.seen[user], 20));
        let wanted = &choices.held_out[user];
        if wanted.is_empty() {
            continue;
        }
        users += 1.0;
        let right: Vec<usize> = (0..20).filter(|at| wanted.contains(&items[*at])).collect();
        sum.recall += right.len() as f64 / wanted.len() as f64;
        let gained: f64 = right.iter().map(|at| 2f64.ln() / (*at as f64 + 2.0).ln()).sum();
        let best: f64 = (0..wanted.len().min(20)).map(|at| 2f64.ln() / (at as f64 + 2.0).ln()).sum();
        sum.ndcg += gained / best;
        sum.hits += f64::from(u8::from(!right.is_empty()));
    }
    assert!((found.recall - sum.recall / users).abs() < 1e-12);
    assert!((found.ndcg - sum.ndcg / users).abs() < 1e-12);
    assert!((found.hits - sum.hits / users).abs() < 1e-12);
    let perfect = evaluate(&choices, 20, |user, out| {
        out.fill(0.0);
        choices.held_out[user].iter().for_each(|item| out[*item as usize] = 1.0);
    });
    assert_eq!((perfect.ndcg, perfect.hits), (1.0, 1.0));
}

#[test]
fn scores_are_products_of_whole_vectors() {
    let mut random = random();
    let users = SparseTable::random(7, 12, 40, 1.0, &mut random);
    let items = SparseTable::random(11, 12, 50, 1.0, &mut random);
    let (u, i) = (users.dense(), items.dense());
    let mut scorer = Scorer::new(&users, &items);
    let mut scores = vec![0.0; 11];
    let mut both = 0;
    for user in 0..7 {
        scorer.score(user, &mut scores);
        for (item, score) in scores.iter().enumerate() {
            let products = (0..12).map(|c| u[user * 12 + c] * i[item * 12 + c]);
            both += products.clone().filter(|it| *it != 0.0).count();
            assert!((products.sum::<f32>() - score).abs() < 1e-5);
        }
    }
    assert_eq!(scorer.macs, both as u64);
}

#[test]
fn choices_are_split_and_few_items_are_popular() {
    let choices =
        Choices::generate(&Size { users: 300, items: 400, genres: 8, choices: 30, taste: 4.0, skew: 0.8 }, 5);
    for (seen, held_out) in choices.seen.iter().zip(&choices.held_out) {
        assert!(seen.is_sorted() && held_out.iter().all(|item| seen.binary_search(item).is_err()));
        assert_eq!(held_out.len(), (seen.len() + held_out.len()) / 5);
    }
    let mut counts = choices.popularity();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let tenth: usize = counts[..40].iter().sum();
    assert!(tenth as f64 > 0.3 * choices.count() as f64, "{tenth} of {}", choices.count());
    let triples = choices.epoch(&mut random());
    assert_eq!(triples.len(), choices.count());
    assert!(triples.iter().all(|[user, chosen, other]| {
        let seen = &choices.seen[*user as usize];
        seen.contains(chosen) && !seen.contains(other)
    }));
}

#[test]
fn a_sparse_model_learns_within_its_budget_and_beats_popularity() {
    let choices = Choices::generate(&SMALL, 11);
    let exploration = Exploration { every: 6, look: 3, ..Exploration::default() };
    let options = Options {
        width: 16,
        density: 0.25,
        exploration: Some(exploration),
        epochs: 40,
        batch: 256,
        rate: 1e-2,
        ..Options::default()
    };
    let mut model = Recommender::new(&choices, &options).unwrap();
    let wanted = (SMALL.users + SMALL.items) * 16 / 4;
    let before: Vec<usize> = model.items.table.places().collect();
    model.learn(&choices, &options, &mut |_| Ok(())).unwrap();
    assert_eq!((model.count(), model.stored), (wanted, [wanted; 2]));
    assert_ne!(before, model.items.table.places().collect::<Vec<usize>>());
    let mut scorer = Scorer::new(&model.users.table, &model.items.table);
    let found = evaluate(&choices, 20, |user, out| scorer.score(user, out));
    let popularity = choices.popularity();
    let by_popularity = evaluate(&choices, 20, |_, out| {
        out.iter_mut().zip(&popularity).for_each(|(out, count)| *out = *count as f32);
    });
    assert!(found.ndcg > by_popularity.ndcg, "{found:?} against {by_popularity:?}");
}

#[test]
fn options_out_of_range_are_refused() {
    let choices = Choices::generate(&SMALL, 11);
    let refused = |options: Options| Recommender::new(&choices, &options).unwrap_err().to_string();
    assert!(refused(Options { density: 0.0, ..Options::default() }).contains("density"));
    assert!(refused(Options { density: 1.5, ..Options::default() }).contains("density"));
    assert!(refused(Options { width: 0, ..Options::default() }).contains("width"));
    let none = Choices { seen: vec![Vec::new()], held_out: vec![Vec::new()], items: 3 };
    let mut model = Recommender::new(&none, &Options::default()).unwrap();
    let said = model.learn(&none, &Options::default(), &mut |_| Ok(())).unwrap_err().to_string();
    assert!(said.contains("no choices"), "{said}");
}

#[test]
fn spread_embeddings_are_means_of_powers_and_their_gradients_those_of_differences() {
    let width = 3;
    let size = Size { users: 7, items: 9, genres: 3, choices: 5, taste: 2.0, skew: 0.5 };
    let choices = Choices::generate(&size, 3);
    let graph = Graph::new(&choices, 2);
    let mut random = random();
    let mut users = Learned::new(SparseTable::random(7, width, 15, 1.0, &mut random));
    let mut items = Learned::new(SparseTable::random(9, width, 20, 1.0, &mut random));
    // The whole matrix of the graph, [16, 16].
    let popularity = choices.popularity();
    let mut joined = vec![0.0f64; 256];
    for (user, seen) in choices.seen.iter().enumerate() {
        for &item in seen {
            let weight = 1.0 / ((seen.len() * popularity[item as usize]) as f64).sqrt();
            joined[user * 16 + 7 + item as usize] = weight;
            joined[(7 + item as usize) * 16 + user] = weight;
        }
    }
    let spread = |users: &[f32], items: &[f32]| -> Vec<f64> {
        let mut now: Vec<f64> = users.iter().chain(items).map(|x| f64::from(*x)).collect();
        let mut sum = now.clone();
        for _ in 0..2 {
            let product = |at: usize| {
                let (row, column) = (at / width, at % width);
                (0..16).map(|other| joined[row * 16 + other] * now[other * width + column]).sum::<f64>()
            };
            now = (0..16 * width).map(product).collect();
            sum.iter_mut().zip(&now).for_each(|(sum, x)| *sum += x);
        }
        sum.into_iter().map(|x| x / 3.0).collect()
    };
    let (u, i) = (users.table.dense(), items.table.dense());
    let mut macs = 0;
    let found = graph.spread(&[u.clone(), i.clone()], width, &mut macs).concat();
    let expected = spread(&u, &i);
    assert!(found.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6));
    assert_eq!(macs as usize, 2 * 2 * choices.count() * width);
    let triples = choices.epoch(&mut random);
    let decay = 0.1;
    let loss = |u: &[f32], i: &[f32]| -> f64 {
        let all = spread(u, i);
        let row = |at: usize| &all[at * width..(at + 1) * width];
        let own: Vec<f64> = u.iter().chain(i).map(|x| f64::from(*x)).collect();
        let size = |at: usize| own[at * width..(at + 1) * width].iter().map(|x| x * x).sum::<f64>();
        let one = |triple: &Triple| {
            let [u, i, j] = [triple[0] as usize, 7 + triple[1] as usize, 7 + triple[2] as usize];
            let x: f64 = (0..width).map(|c| row(u)[c] * (row(i)[c] - row(j)[c])).sum();
            (1.0 + (-x).exp()).ln() + f64::from(decay) / 2.0 * (size(u) + size(i) + size(j))
        };
        triples.iter().map(one).sum::<f64>() / triples.len() as f64
    };
    let mut slopes = Slopes::new(&users, &items);
    let found = light_gcn::accumulate(
        [&mut users, &mut items],
        &graph,
        &triples,
        decay,
        Some(&mut slopes),
        &mut macs,
    );
    assert!((found - loss(&u, &i)).abs() < 1e-6);
    let difference = |at: usize| {
        let moved = |step: f32| {
            let (mut u, mut i) = (u.clone(), i.clone());
            *u.iter_mut().chain(&mut i).nth(at).expect("there") += step;
            loss(&u, &i)
        };
        (moved(1e-3) - moved(-1e-3)) / 2e-3
    };
    let stored = users.table.places().zip(&users.gradient);
    let stored = stored.chain(items.table.places().map(|at| at + 7 * width).zip(&items.gradient));
    for (at, gradient) in stored {
        assert!((f64::from(*gradient) - difference(at)).abs() < 1e-4, "{at}");
    }
    // Where nothing is stored there is no decay, and the slope is all.
    let all = [u.clone(), i.clone()].concat();
    let slopes = [slopes.users, slopes.items].concat();
    for at in (0..all.len()).filter(|at| all[*at] == 0.0) {
        assert!((f64::from(slopes[at]) - difference(at)).abs() < 1e-4, "{at}");
    }
}
