"""Controllable image reconstruction: one hypernetwork gives the reconstruction for every setting of the loss weights.

    import hyperrecon_jax as hr

A run, or a model of your own. A model is two stateless networks, its variables a plain tree.

    hr.load(run)                    -> model, variables
    hr.load_task(run)               -> problem, objective: how it measures, what it minimises
    hr.init(key, network, example, num_terms=, hyper_width=) -> model, variables: any Flax module, made a function of lambda
    hr.condition(key, theta, ...)   -> model, params: so does any tree of arrays
    hr.matching("up1_*", "head/*")  which leaves are generated; hr.UNet, hr.Conv, hr.Model, hr.count_parameters

One image, one lambda; `jax.vmap` over what you like, `jax.grad` in what you like.

    hr.generate_weights(model, params, lam)                 theta = H(lambda)
    hr.apply_main(model, theta, batch_stats, net_input)     x_hat = M_theta(y)
    hr.reconstruct(model, variables, lam, net_input)        x_hat = M[H(lambda)](y)
    hr.coefficients(lam)                                    the weights of the loss terms (Eqs. 9, 10)

What is measured, and what is asked of the result.

    hr.simulated(operator, noise), hr.measured(mask)    an `hr.Problem`: observe, to_net_input, data_consistency
    hr.Sample(image), hr.Coils, hr.Objective, hr.make_terms
    hr.value_and_grad(model, objective, problem, params, batch_stats, lam, samples, y, keep=)   UHS; DHS with `keep`
    hr.operators, hr.masks, hr.losses, hr.metrics, hr.hyperparams   modules of pure functions

Over lambda.

    hr.landscape(value, axes)               any function of lambda on a grid
    hr.best_lambda(value, starts)           its maximum, by gradient
    hr.choose                               what to maximise: a metric of many images, k-space that was held out
    hr.diverse_pair(images, quality)        the two good reconstructions that differ most

From elsewhere, and to it.

    hr.interop.from_torch(state), hr.interop.to_torch(model, variables)     the authors' checkpoints
    hr.export.plain(model, variables, lam), hr.export.onnx_bytes, hr.export.serialized

Images are float32 in [0, 1], `(h, w, 1)`; a network's input is `(h, w, 2)`, the real and the imaginary part of
the zero-filled image; lambda is `(K-1,)` in [0, 1] for a loss of K terms; the FFT is orthonormal, the zero frequency in
the corner.
Bad input raises `hr.InputError`. What stands here keeps its name and signature from version to version.
"""

import lazy_loader

__version__ = "0.2.0"

# A name is imported when it is first used, from the module that `__init__.pyi` names. So `import hyperrecon_jax` takes no
# time, and it does not fix JAX's settings before a program has made its own.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
