// SPDX-License-Identifier: Apache-2.0

package privatefiletest

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

func setMode(path string, mode fs.FileMode) error {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return err
	}
	text := "D:P(A;;FA;;;SY)(A;;FA;;;" + user.User.Sid.String() + ")"
	if mode&0o044 != 0 {
		text += "(A;;FR;;;WD)"
	}
	if mode&0o022 != 0 {
		text += "(A;;FW;;;WD)"
	}
	descriptor, err := windows.SecurityDescriptorFromString(text)
	if err != nil {
		return err
	}
	list, _, err := descriptor.DACL()
	if err != nil {
		return err
	}
	return windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, list, nil)
}
