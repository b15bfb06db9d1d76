package e2e

// root is the top of the tree, as seen from this package's folder.
const root = ".."
