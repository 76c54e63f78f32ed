use super::*;

fn generation(change: impl FnOnce(&mut Generation)) -> Generation {
    let mut generation = Generation::default();
    change(&mut generation);
    generation
}

fn choose(settings: &Generation, logits: &[f32]) -> Result<u32, SamplingError> {
    Sampler::new(settings).choose(logits, None)
}

fn shares(settings: &Generation, logits: &[f32], draws: u64) -> Vec<f64> {
    let mut counts = vec![0.0; logits.len()];
    for seed in 0..draws {
        let settings = Generation {
            seed,
            ..settings.clone()
        };
        let chosen = choose(&settings, logits).unwrap();
        counts[usize::try_from(chosen).unwrap()] += 1.0 / draws as f64;
    }
    counts
}

#[test]
fn temperature_zero_takes_the_likeliest_and_the_lower_id_of_two() {
    let cold = generation(|g| g.temperature = 0.0);
    assert_eq!(choose(&cold, &[0.0, 3.0, 3.0, -1.0]), Ok(1));
    assert_eq!(choose(&cold, &[f32::NEG_INFINITY, -9.0]), Ok(1));
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    for logits in [
        [0.0, f32::NAN],
        [f32::INFINITY, 0.0],
        [f32::NEG_INFINITY, f32::NEG_INFINITY],
    ] {
        for temperature in [0.0, 1.0] {
            let settings = generation(|g| g.temperature = temperature);
            assert_eq!(
                choose(&settings, &logits),
                Err(SamplingError::NotFinite),
                "{logits:?} at {temperature}"
            );
        }
    }
}

#[test]
fn draws_follow_the_softmax() {
    let logits = [0.0, 1.0, 2.0];
    let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    let shares = shares(&Generation::default(), &logits, 20_000);
    for (share, logit) in shares.iter().zip(logits) {
        let expected = f64::from(logit).exp() / total;
        assert!((share - expected).abs() < 0.015, "{share} instead of {expected}");
    }
}

#[test]
fn filters_drop_exactly_what_they_should() {
    // Probabilities 0.032, 0.087, 0.237, 0.644.
    let logits = [0.0, 1.0, 2.0, 3.0];
    let kept = |settings: Generation| -> Vec<usize> {
        let shares = shares(&settings, &logits, 2_000);
        (0..4).filter(|id| shares[*id] > 0.0).collect()
    };
    assert_eq!(kept(generation(|g| g.top_k = 2)), [2, 3]);
    assert_eq!(kept(generation(|g| g.top_p = 0.64)), [3]);
    assert_eq!(kept(generation(|g| g.top_p = 0.65)), [2, 3]);
    assert_eq!(kept(generation(|g| g.top_p = 0.0)), [3]);
    assert_eq!(kept(generation(|g| g.min_p = 0.2)), [2, 3]);
    assert_eq!(kept(generation(|g| g.temperature = 0.01)), [3]);
    assert_eq!(kept(Generation::default()), [0, 1, 2, 3]);
}

#[test]
fn a_nucleus_larger_than_the_first_guess_is_found() {
    let logits = vec![0.0f32; 5_000];
    let sampler = Sampler::new(&generation(|g| g.top_p = 0.5));
    let kept = sampler.filtered(&logits, None).unwrap();
    assert_eq!(kept.len(), 2_500);
    assert!(kept.iter().all(|candidate| candidate.id < 2_500));
}

#[test]
fn dropping_other_tokens_does_not_change_a_draw() {
    let logits: Vec<f32> = (0..2_000u16).map(|id| f32::from(id % 97) / 10.0).collect();
    for seed in 0..50 {
        let settings = generation(|g| g.seed = seed);
        let whole = choose(&settings, &logits).unwrap();
        let mut few = vec![f32::NEG_INFINITY; logits.len()];
        for id in (0..2_000).filter(|id| id % 300 == 0 || *id == whole) {
            let id = usize::try_from(id).unwrap();
            few[id] = logits[id];
        }
        assert_eq!(choose(&settings, &few), Ok(whole));
        let mask: Vec<u32> = (0..63u32)
            .map(|word| if word == whole / 32 { 1 << (whole % 32) } else { 0 })
            .collect();
        let masked = Sampler::new(&settings).choose(&logits, Some(Allowed(&mask)));
        assert_eq!(masked, Ok(whole));
    }
}

#[test]
fn a_grammar_that_allows_nothing_is_an_error_and_the_rest_obey_it() {
    for temperature in [0.0, 1.0] {
        let settings = generation(|g| g.temperature = temperature);
        let sampler = || Sampler::new(&settings);
        let logits = [5.0, 1.0, 0.0];
        assert_eq!(
            sampler().choose(&logits, Some(Allowed(&[0]))),
            Err(SamplingError::NothingAllowed)
        );
        assert_eq!(sampler().choose(&logits, Some(Allowed(&[0b100]))), Ok(2));
    }
}

#[test]
fn penalties_push_repeated_tokens_down() {
    let mut sampler = Sampler::new(&generation(|g| {
        g.temperature = 0.0;
        g.frequency_penalty = 0.4;
        g.presence_penalty = 0.2;
    }));
    let logits = [1.0, 0.5];
    let chosen: Vec<u32> = (0..4).map(|_| sampler.choose(&logits, None).unwrap()).collect();
    // 1.0 | 0.4 < 0.5 | 0.4 > -0.1 | 0.0 > -0.1
    assert_eq!(chosen, [0, 1, 0, 0]);
}

#[test]
fn the_margin_is_zero_for_the_token_that_was_picked_and_grows_with_the_distance() {
    let logits: Vec<f32> = (0..300u16).map(|id| f32::from(id % 31) / 5.0).collect();
    for change in [
        |_: &mut Generation| (),
        |g: &mut Generation| g.top_k = 5,
        |g: &mut Generation| g.top_p = 0.5,
        |g: &mut Generation| g.temperature = 0.0,
        |g: &mut Generation| g.frequency_penalty = 0.5,
    ] {
        let settings = generation(change);
        let (mut writer, mut reader, mut liar) = (
            Sampler::new(&settings),
            Sampler::new(&settings),
            Sampler::new(&settings),
        );
        for _ in 0..30 {
            let chosen = writer.choose(&logits, None).unwrap();
            assert_eq!(reader.margin(&logits, chosen, None), Ok(0.0));
            // The least likely token of all.
            assert!(liar.margin(&logits, 0, None).unwrap() > 0.0);
        }
        assert_eq!(liar.margin(&logits, 5_000, None), Ok(f64::INFINITY));
    }
}
