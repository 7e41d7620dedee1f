// SPDX-License-Identifier: Apache-2.0

package privatefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Security identifiers that are the same on every Windows.
const (
	sidSystem         = "S-1-5-18"
	sidAdministrators = "S-1-5-32-544"
	sidLocalService   = "S-1-5-19"
	sidNetworkService = "S-1-5-20"
	sidServices       = "S-1-5-80-" // begins that of each service, TrustedInstaller among them
	sidInstaller      = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
	sidOwnerRights    = "S-1-3-4" // stands for the owner in a list
)

// user returns the security identifier of the user whom this process runs as.
func user() (string, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", fmt.Errorf("whose process this is: %w", err)
	}
	return user.User.Sid.String(), nil
}

// privateList returns a security descriptor with a protected list, which takes
// nothing over from the folder: the owner, SYSTEM and Administrators may do
// everything, others nothing. A folder hands it on to what others make in it.
func privateList(owner string, folder bool) (*windows.SECURITY_DESCRIPTOR, error) {
	list := "D:P"
	inherit := ""
	if folder {
		inherit = "OICI"
	}
	for _, who := range []string{owner, sidSystem, sidAdministrators} {
		list += "(A;" + inherit + ";FA;;;" + who + ")"
	}
	return windows.SecurityDescriptorFromString(list)
}

func privateAttributes(folder bool) (*windows.SecurityAttributes, error) {
	me, err := user()
	if err != nil {
		return nil, err
	}
	descriptor, err := privateList(me, folder)
	if err != nil {
		return nil, err
	}
	attributes := &windows.SecurityAttributes{SecurityDescriptor: descriptor}
	attributes.Length = uint32(unsafe.Sizeof(*attributes))
	return attributes, nil
}

// Rights that do no harm: to see that something is there, and who may use it.
const harmless = windows.SYNCHRONIZE | windows.READ_CONTROL | windows.FILE_READ_ATTRIBUTES | windows.FILE_READ_EA

// changing are the rights to change a file, or what is in a folder.
const changing = windows.FILE_WRITE_DATA | windows.FILE_APPEND_DATA | windows.FILE_WRITE_EA | fileDeleteChild | windows.FILE_WRITE_ATTRIBUTES |
	windows.DELETE | windows.WRITE_DAC | windows.WRITE_OWNER | windows.GENERIC_WRITE | windows.GENERIC_ALL

// reading are the rights to read a file, or to give oneself that right.
const reading = windows.FILE_READ_DATA | windows.WRITE_DAC | windows.WRITE_OWNER | windows.GENERIC_READ | windows.GENERIC_ALL

const fileDeleteChild = 0x40

// Kinds of entries of lists beside ACCESS_ALLOWED_ACE_TYPE and
// ACCESS_DENIED_ACE_TYPE.
const (
	allowedCallback      = 9
	deniedObject         = 6
	deniedCallback       = 10
	deniedCallbackObject = 12
)

// checkAccess reports whether the list of what is open gives others the forbidden
// rights: others than the user of this process, the owner, Administrators and SYSTEM.
// The owner has to be one of these, or a service: anybody can make a folder in
// ProgramData, before the program comes that is to use it.
func checkAccess(file *os.File, forbidden fs.FileMode) error {
	if forbidden == 0 {
		return nil
	}
	path := file.Name()
	descriptor, err := windows.GetSecurityInfo(windows.Handle(file.Fd()), windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return &fs.PathError{Op: "read the access control list of", Path: path, Err: err}
	}
	me, err := user()
	if err != nil {
		return err
	}
	return examine(descriptor, path, me, forbidden)
}

// examine is checkAccess for a descriptor and a user.
func examine(descriptor *windows.SECURITY_DESCRIPTOR, path, me string, forbidden fs.FileMode) error {
	owner, err := ownerOf(descriptor)
	if err != nil {
		return fmt.Errorf("%s has no owner: %w", path, err)
	}
	if !isOwner(owner, me) {
		return fmt.Errorf("%s is %w: it belongs to %s, who may have made it to read what is to be put there: do this as that user, or give it to Administrators: icacls \"%s\" /setowner *%s",
			path, ErrMode, account(owner), path, sidAdministrators)
	}
	list, _, err := descriptor.DACL()
	if err != nil && !errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) {
		return &fs.PathError{Op: "read the access control list of", Path: path, Err: err}
	}
	who, err := strangers(list, forbidden, []string{me, owner, sidSystem, sidAdministrators, sidInstaller, sidOwnerRights})
	if err != nil {
		return &fs.PathError{Op: "read the access control list of", Path: path, Err: err}
	}
	if len(who) == 0 {
		return nil
	}
	return fmt.Errorf("%s is %w (%s): %s, and if they may have read secrets there, replace those", path, ErrMode, accounts(who), advice(path, owner, who))
}

// isOwner reports whether the owner of a file or folder is one that a user trusts.
func isOwner(owner, user string) bool {
	return slices.Contains([]string{user, sidSystem, sidAdministrators, sidLocalService, sidNetworkService}, owner) || strings.HasPrefix(owner, sidServices)
}

func ownerOf(descriptor *windows.SECURITY_DESCRIPTOR) (string, error) {
	owner, _, err := descriptor.Owner()
	if err != nil || owner == nil {
		return "", errors.Join(err, windows.ERROR_INVALID_OWNER)
	}
	return owner.String(), nil
}

const everyone = "S-1-1-0"

// strangers returns who has one of the forbidden rights and is not among the trusted.
// What denies rights is not taken into account.
func strangers(list *windows.ACL, forbidden fs.FileMode, trusted []string) (who []string, err error) {
	if list == nil {
		return []string{everyone}, nil // no list is no limit
	}
	rights := ^windows.ACCESS_MASK(harmless)
	switch forbidden {
	case Writing:
		rights = changing
	case Reading:
		rights = reading
	}
	for i := range uint32(list.AceCount) {
		var entry *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(list, i, &entry); err != nil {
			return nil, err
		}
		switch entry.Header.AceType {
		case windows.ACCESS_DENIED_ACE_TYPE, deniedObject, deniedCallback, deniedCallbackObject:
			continue
		case windows.ACCESS_ALLOWED_ACE_TYPE, allowedCallback:
		default:
			return nil, fmt.Errorf("an entry of the kind %d is not known", entry.Header.AceType)
		}
		if entry.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 || entry.Mask&rights == 0 {
			continue
		}
		sid := (*windows.SID)(unsafe.Pointer(&entry.SidStart)).String()
		if !slices.Contains(trusted, sid) && !slices.Contains(who, sid) {
			who = append(who, sid)
		}
	}
	return who, nil
}

// account returns the name of a security identifier, where it has one.
func account(sid string) string {
	if id, err := windows.StringToSid(sid); err == nil {
		if name, domain, _, err := id.LookupAccount(""); err == nil && domain != "" {
			return domain + `\` + name
		} else if err == nil {
			return name
		}
	}
	return sid
}

func accounts(sids []string) string {
	names := make([]string, len(sids))
	for i, sid := range sids {
		names[i] = account(sid)
	}
	return strings.Join(names, ", ")
}

// advice is a command that makes a list private.
func advice(path, owner string, others []string) string {
	grants, removed := "", ""
	full := ":F"
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		full = ":(OI)(CI)F"
	}
	for _, who := range []string{owner, sidSystem, sidAdministrators} {
		grants += " *" + who + full
	}
	for _, who := range others {
		removed += " *" + who
	}
	return fmt.Sprintf(`icacls "%s" /inheritance:r /remove%s /grant:r%s`, path, removed, grants)
}
