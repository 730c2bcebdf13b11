"""The texts of the report: what the paper shows and says, in our words, and what to see in our pictures."""

TITLE = "Computing Multiple Image Reconstructions with a Single Hypernetwork"
INTRODUCTION = (
    "A network that reconstructs images is trained on a weighted sum of losses, and is usually stuck with one"
    " choice of the weights λ. HyperRecon is a hypernetwork that turns λ into the weights of a U-Net: trained once,"
    " it reconstructs for every λ. HyperRecon-S, -M and -L have hidden layers of 4, 32 and 128; “U-Nets” are what"
    " they are compared with, a plain network trained for each of some λ. Supervised, λ goes from the mean absolute"
    " error (0) to structural similarity (1). Without ground truth there are two λ: λ₁ weighs agreement with the"
    " measurement, λ₂ small weights against small total variation; training then draws λ uniformly (UHS) or keeps"
    " those whose reconstructions agree with the data (DHS)."
)
PAPER = {
    "table1": (
        "On its GPU (Titan Xp) one U-Net trains in about 4 hours, all 361 in about 648; HyperRecon-S, -M and -L in"
        " 5, 6 and 7. Parameters: 149K, 53M, 744K, 4.9M and 19M. Every network reconstructs an image in about 0.2"
        " s. The conclusion: the largest hypernetwork has a third of the parameters of all U-Nets, and takes only a"
        " little longer to train than one."
    ),
    "fig3": (
        "Brains, supervised, CS-MRI: nMAE, SSIM, PSNR, nHFEN and Dice over λ, where λ = 0 is MAE alone and λ = 1"
        " SSIM alone. The curve of HyperRecon-L, at 100 λ, runs close to the points of five U-Nets at λ = 0, 0.25,"
        " 0.5, 0.75 and 1 on every metric."
    ),
    "fig4": (
        "Knees, without ground truth, 8-fold CS-MRI: rPSNR, the gain over the zero-filled input, over the square of"
        " (λ₁, λ₂), where λ₁ weighs agreement with the data, λ₂ small weights against small total variation. On top"
        " the U-Nets at 19 × 19 λ; under them HyperRecon-S, -M and -L, with uniform sampling (UHS, left) and"
        " data-driven sampling (DHS, right). Higher capacity approaches the U-Nets; DHS is significantly better"
        " than UHS at each capacity, and least so for L."
    ),
    "fig5": (
        "Knees, supervised: four metrics over λ for CS-MRI, denoising (σ = 0.1) and fourfold super-resolution."
        " HyperRecon-L matches the U-Nets very closely on all metrics and tasks, so that the hypernetwork finds the"
        " best weights for all of λ."
    ),
    "fig6": (
        "A slice each of brain and knee, 8-fold CS-MRI, supervised: U-Nets above, HyperRecon-L below, over λ. At"
        " the same λ they look alike. More weight on MAE is smoother and blurrier with less contrast, more on SSIM"
        " is noisier with more high frequencies and more contrast between dark and bright."
    ),
    "fig7": (
        "HyperRecon-L with DHS, without ground truth: of 100 × 100 reconstructions of a slice those above the 90th"
        " percentile of PSNR, and of these the two that are furthest apart in l2. They have about the same PSNR and"
        " look significantly different."
    ),
    "dice": (
        "A U-Net that was trained on clean brains (background, gray matter, white matter, cerebrospinal fluid,"
        " cortex) segments the reconstructions. The best λ for Dice is about 0.25, and HyperRecon-L finds it"
        " without training a network for each λ."
    ),
    "dhs": (
        "An example of which (λ₁, λ₂) DHS takes its gradients from in one epoch: not all of the square, but the"
        " part whose reconstructions agree with the data."
    ),
}
SEE = {
    "fig3": (
        "Lines: HyperRecon-L, one network. Points: U-Nets, a network each. Higher is better in every panel, bars"
        " and bands are 95 % intervals over test subjects, stars the best λ. The line should pass near the points."
    ),
    "fig5": "As Fig. 3, a colour for each task, a line (HyperRecon-L) and points (U-Nets) of each.",
    "gaps": (
        "HyperRecon-L less U-Net at the U-Nets' λ, above zero where one network for all λ is better; bars are 95 %"
        " intervals over subjects of the paired differences, the gray band is what nobody sees."
    ),
    "fig6": (
        "Columns from MAE alone (left) to SSIM: look for brighter white matter, darker folds and finer texture to"
        " the right, and compare the rows, which should look alike in each column. Numbers are PSNRs; the framed"
        " part is magnified."
    ),
    "fig4": (
        "Bright is good; zero is the zero-filled input. Stars are maxima, lines level sets; all panels share one"
        " scale. Above uniform (UHS), below data-driven sampling (DHS); to the right more capacity (HyperRecon-S,"
        " -M, -L), last the U-Nets, interpolated. With several seeds their mean is shown."
    ),
    "dhs": "HyperRecon-L: how often each part of the square was kept, relative to uniform sampling (1).",
    "fig7": (
        "Each pair is chosen from 10,000 reconstructions of one test slice; the last column is their difference."
        " The PSNRs should be near each other and the images plainly different."
    ),
    "dice": (
        "Dice of HyperRecon-L over λ (line), its best λ marked, and of the U-Nets (points), with 95 % intervals"
        " over subjects."
    ),
}
