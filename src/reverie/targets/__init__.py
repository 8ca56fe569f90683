"""Densities without data: an unnormalised log density is all that is known.

    from reverie.targets import sample
    run = sample(log_density, dim)        # .samples, .log_z, .elbo, .ess, .sentences()

Every method is a pair of Markov chains whose log weights are normalised: E exp(log w) = Z whatever
its parameters are.
"""

from reverie import lazily

__getattr__ = lazily(
    __name__,
    {
        "AnnealedLayer": "reverie.targets.learned",
        "Annealing": "reverie.targets.annealing",
        "Chain": "reverie.targets.pair",
        "Funnel": "reverie.targets.known",
        "Gaussian": "reverie.targets.known",
        "GaussianStart": "reverie.targets.starts",
        "Islands": "reverie.targets.smc",
        "Known": "reverie.targets.known",
        "Layer": "reverie.targets.pair",
        "LogZ": "reverie.targets.estimate",
        "LogisticRegression": "reverie.targets.known",
        "METHODS": "reverie.targets.run",
        "ManyWell": "reverie.targets.known",
        "Mixture": "reverie.targets.known",
        "PathPair": "reverie.targets.pair",
        "Point": "reverie.targets.target",
        "ReversibleLayer": "reverie.targets.kernels",
        "Rollout": "reverie.targets.pair",
        "SMC": "reverie.targets.smc",
        "StudentMixture": "reverie.targets.known",
        "Target": "reverie.targets.target",
        "TargetRun": "reverie.targets.run",
        "ULALayer": "reverie.targets.kernels",
        "anneal": "reverie.targets.annealing",
        "forty_gaussians": "reverie.targets.known",
        "learned_pair": "reverie.targets.learned",
        "log_z_of_islands": "reverie.targets.estimate",
        "log_z_of_weights": "reverie.targets.estimate",
        "mode_coverage": "reverie.targets.known",
        "mode_shares": "reverie.targets.known",
        "sample": "reverie.targets.run",
        "train": "reverie.targets.training",
    },
    {},
)
