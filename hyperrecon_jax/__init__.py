"""Controllable image reconstruction: one hypernetwork gives the reconstruction for every setting of the loss weights.

    import hyperrecon_jax as hr

Load a trained run. Its folder has its settings; all settings and their defaults are in `hyperrecon_jax.config`.

    hr.load(run)                    -> model, variables
    hr.load_task(run)               -> problem, objective: the measurement, and the loss
    hr.pretrained()                 -> model, variables: the model that comes with the package, `hr.load("pretrained")`

Make a model. A model (`hr.Model`) is a hypernetwork and a main network, both without state. Its variables are a plain tree
of arrays.

    hr.init(key, network, example, num_terms=, hyper_width=)    -> model, variables: makes any Flax module depend on lambda
    hr.condition(key, theta, ...)                               -> model, params: makes any tree of arrays depend on lambda
    hr.matching("up1_*", "head/*")                              selects the leaves that the hypernetwork generates
    hr.UNet, hr.Unrolled                                        main networks: the paper's, and one with data consistency
    hr.Conv                                                     their convolution, for modules of your own
    hr.count_parameters(params)                                 the number of parameters

Reconstruct. Each function takes one image and one lambda; use `jax.vmap` for several, and `jax.grad` for gradients.

    hr.reconstruct(model, variables, lam, net_input)        x_hat = M[H(lambda)](y)
    hr.generate_weights(model, params, lam)                 theta = H(lambda)
    hr.apply_main(model, theta, batch_stats, net_input)     x_hat = M_theta(y)
    hr.coefficients(lam)                                    the weights of the loss terms (Eqs. 9, 10)

Measure an image, and judge a reconstruction.

    hr.simulated(operator, noise), hr.measured(mask)    an `hr.Problem`: observe, to_net_input, data_consistency
    hr.with_physics_input(problem)                      the same problem for `hr.Unrolled`, whose input is `hr.PhysicsInput`
    hr.Sample(image), hr.Coils                          an image with its labels, and the k-space that coils measured
    hr.Objective, hr.make_terms                         the loss, and its terms by name
    hr.value_and_grad(model, objective, problem, params, batch_stats, lam, samples, y, keep=)   UHS; with `keep`, DHS
    hr.operators, hr.masks, hr.losses, hr.metrics, hr.hyperparams   modules of pure functions

Work over lambda.

    hr.landscape(value, axes)               the values of a function of lambda on a grid
    hr.best_lambda(value, starts)           the maximum of a function of lambda, by gradient
    hr.choose                               functions to maximise: a metric of many images, the fit to withheld k-space
    hr.diverse_pair(images, quality)        the two good reconstructions that differ most

Import and export.

    hr.interop.from_torch(state), hr.interop.to_torch(model, variables)     the authors' checkpoints
    hr.export.plain(model, variables, lam), hr.export.onnx_bytes, hr.export.serialized

Images are float32 in [0, 1], `(h, w, 1)`. The input of a U-Net is `(h, w, 2)`: the real and the imaginary part of the
zero-filled image. An unrolled network also receives the measurement and its operator. lambda is `(K-1,)` in [0, 1] for a
loss of K terms. The FFT is orthonormal, and the zero frequency is in the corner. Bad input raises `hr.InputError`. These
names and their signatures stay the same from version to version.
"""

import lazy_loader

__version__ = "0.2.0"

# Python imports a public name at its first use, from the module that `__init__.pyi` gives. So `import hyperrecon_jax` is
# quick, and it does not import JAX before a program has set JAX's options.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
