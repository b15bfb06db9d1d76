package zone

import (
	"errors"
	"fmt"
	"io/fs"
)

// errUnreadable stands for what is wrong with a line of a file of which not one
// record can be read. Such a file may be no zone file at all but a private key,
// say, and nothing of it is told to anybody.
var errUnreadable = errors.New("cannot be read as a record")

// withhold takes the file's text out of its errors, those from the first on.
func (r *reader) withhold(s *fileState, first int) {
	for i := first; i < len(r.errs.list.Errors); i++ {
		e := &r.errs.list.Errors[i]
		if e.File == r.files[s.number] && !errors.Is(e.Err, errUnreadable) {
			e.Record, e.Err = "", unreadable(e.Err)
		}
	}
}

// unreadable is the part of an error that has none of the file's text: the
// reason where it is one of those that name nothing.
func unreadable(err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%w: %w", errUnreadable, failed.Err)
	}
	for _, reason := range []error{
		errTooLong, errParenOpen, errParenClose, errQuoteOpen, errControlByte, errNUL,
		errNoOwner, errOutOfZone, errNoType, errUnknownType, errNoTTL, errClass, errTwice, errBadTTL, errTTLRange, errTTLTooHigh,
		errEmptyLabel, errLongLabel, errLongName, errBadEscape, errEmptyName,
		errFewTokens, errManyTokens, errBadNumber, errBadAddress, errBadHex, errBadBase64, errLongText, errBadTime, errBadTypes, errQuoted,
		errDigestSize, errNotData, errUnknownDirective,
		errIncludeDepth, errIncludeCycle, errIncludeMany, errIncludePath, errIncludeEscape,
		errGenerateForm, errGenerateRange,
	} {
		if errors.Is(err, reason) {
			return fmt.Errorf("%w: %w", errUnreadable, reason)
		}
	}
	return errUnreadable
}
