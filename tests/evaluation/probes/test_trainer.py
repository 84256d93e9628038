import numpy as np

from ssl_lens.evaluation.probes.trainer import Settings, _learning_rates, training_processes


def test_batches_are_of_equal_size_and_the_rate_warms_up_and_falls():
    rates = _learning_rates(1.0, 10, 3)
    assert rates.shape == (10, 3)
    assert rates[0].tolist() == [0, 0.5, 1]  # a tenth of the steps
    assert np.all(np.diff(rates.ravel()[2:]) <= 0)
    assert 0 < rates[-1, -1] < 0.01
    counts = []
    for settings in (Settings(), Settings(epochs=7)):
        with training_processes(settings) as trainer:
            counts += [trainer.number_of_epochs(n, steps=300, fewest=10, most=90) for n in (130, 1000, 6400)]
    assert counts == [90, 18, 10, 7, 7, 7]
