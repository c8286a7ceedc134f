"""The measuring protocols, by name."""

PROTOCOLS: dict[str, str] = {
    "strict": (
        "every label counted; DSC and NSD per object; both masks empty: undefined, one empty: 0; NSD on contours (2D, "
        "2 px) or surfaces (3D, 2 mm) with spacing in array-axis order; cold runs with limits read back, no network"
    ),
    "cvpr24": (
        "the challenge to the letter: DSC over labels 1..max, NSD at tolerance 2, 2D images as slabs, NSD 0 unless "
        "DSC > 0.2, spacing as stored, case values to four decimals; wall time of the whole `docker run`, 8 GB"
    ),
}
