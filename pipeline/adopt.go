package pipeline

import (
	"context"
	"fmt"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

// readKeyFile reads a key file, into the keystore with keep.
func (e *Engine) readKeyFile(ctx context.Context, apex zone.Name, f KeyFile, keep bool) (event.Key, error) {
	if f.Keystore != "" || f.ID != "" {
		return e.adoptKey(ctx, apex, f)
	}
	importer, ok := e.keystore.(keymgr.Importer)
	if !ok {
		return event.Key{}, fmt.Errorf("%w: keystore %s takes no key files", ErrState, e.keystore.Name())
	}
	read := importer.Look
	if keep {
		read = importer.Import
	}
	k, err := read(ctx, f.Path, apex.Fold().String(), f.Role)
	if err != nil {
		return k, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return k, nil
}

// adoptKey finds a key that is in a keystore already, and has it prove itself.
// That changes nothing there.
func (e *Engine) adoptKey(ctx context.Context, apex zone.Name, f KeyFile) (event.Key, error) {
	bad := func(format string, args ...any) (event.Key, error) {
		return event.Key{}, fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case f.Keystore == "":
		return bad("key %s on a token: the name of the keystore is missing", f.ID)
	case f.ID == "":
		return bad("a key in keystore %s: its ID there is missing, CKA_ID in hex", f.Keystore)
	case f.Public:
		return bad("%s: a public key of another signer is in no keystore", f.Path)
	case f.Keystore == e.keystore.Name():
		return bad("keystore %s keeps keys in files: give the .private file alone", f.Keystore)
	}
	files, ok := e.keystore.(keymgr.Describer)
	if !ok {
		return event.Key{}, errorState("keystore %s reads no key files", e.keystore.Name())
	}
	k, err := files.Describe(ctx, f.Path, apex.Fold().String(), f.Role)
	if err != nil {
		return k, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	in, err := e.keystoreOf(f.Keystore)
	if err != nil {
		return k, err
	}
	adopter, ok := in.(keymgr.Adopter)
	if !ok {
		return k, errorState("keystore %s takes up no keys that other programs made", f.Keystore)
	}
	began := machineTime()
	k, err = adopter.Adopt(ctx, f.ID, k)
	e.counts.keystores.of(in.Name(), "prove").add(began, err)
	if err != nil {
		return k, tokenError(err)
	}
	return k, nil
}
