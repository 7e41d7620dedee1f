// SPDX-License-Identifier: Apache-2.0

// Package tpm keeps client instance keys in a TPM 2.0: a key is made in the TPM
// and can be used by this one TPM only.
//
//	store, err := tpm.Open(ctx, tpm.Config{Dir: "/var/lib/myapp/keys"})
//	if err != nil {
//		return err
//	}
//	defer store.Close()
//	key, err := keystore.OpenOrCreate(ctx, store, "device")
//
// # Where a key is
//
// The TPM has little room. So the Store keeps a key outside of the TPM, in a file,
// encrypted by the TPM with its storage root key. The file is NAME.pem in Config.Dir, in
// the TSS2 PEM format (draft-bottomley-tpm2-keys) that OpenSSL's tpm2 provider,
// ssh-tpm-agent and tpm2-tools read and write (none of them uses keys that are bound to
// PCRs as they are here). Whoever copies the file can do nothing with it without the TPM.
// Whoever may use the TPM and reads the file can sign, unless the key has a PIN. So files
// have mode 0600, and the Store refuses a file that others may read. A second PEM block,
// which other programs ignore, has the Name of the storage root key: another one is
// refused, and so is a TPM that was exchanged or that someone on its bus pretends to be.
// Such a TPM gets no PIN of a new key either.
//
// The parent of a key that is made here is the TCG's ECC storage root key in the
// owner hierarchy (template H-2). It is made anew whenever a key is loaded and
// flushed at once; nothing in the TPM is changed, except by Persist.
//
// Reading changes no file, and nor does Open. The first signature with a key of another
// program adds the Name of the key's parent to the file. Whatever else is in a file, such
// as comments and certificates, stays octet for octet. Owner, group and mode stay, too.
// Root's new files belong to the owner of the folder. A process may be killed at any
// time: then the key is whole, or nothing is left that could sign, where the file system
// has files without a name (O_TMPFILE), or once the folder is opened again.
//
// Several processes may use one folder at the same time. Persist, Unpersist and
// Delete keep each other waiting there, by a lock that ends with its holder, for
// two minutes at the most; then the error matches keystore.ErrUnavailable.
//
// # What a signature costs
//
// One command, TPM2_Sign, while the key stays loaded. A TPM needs some 200 ms
// for it, and does one command at a time: the signatures of all keys of a Store
// queue, and every wait ends with its context. A command that was sent runs to its
// end all the same, and what comes next waits for it.
//
//	                                plain   PIN   PCRs   both
//	signature                       1       1     2      3
//	signature, keys in turn         3       3     4      5
//	signature after 30 seconds      1       4     3      6
//	evidence                        3       3     3      3
//	evidence after 30 seconds       3       6     3      6
//	opening a key                   3       4     3      4
//	making a key                    4       5     8      10
//	signature behind /dev/tpmrm0    4       6     12     18
//	signature so if persistent      1       3     6      9
//
// A quote adds two commands to evidence. Each further eight PCRs add one to a quote, and
// to making a key that is bound to them. Behind /dev/tpmrm0 the kernel swaps key and
// session in and out around each command: the last two lines are what the TPM gets, the
// others what is asked of it.
//
// A key of another program costs the same from the first time on. But where its file does
// not say what is true of the PIN, a signature without one comes first, and opening and
// signing take 8 commands in place of 5. Of a key with noDA that has a PIN no file can say
// so, since tpm2-tools up to 5.7 says it of keys without: it is 7 each time.
//
// One key is loaded at a time. When a Store's keys take turns, a key's saved
// context is loaded, which needs no parent.
//
// Outside of the TPM, a signature costs the processor two or three microseconds: 0.8 times
// what a crypto.Signer does that has TPM2_Sign encoded ahead (BenchmarkSignHost).
//
// # Faults
//
// Errors match a sentinel of package keystore and their cause, a [tpm2.TPMRC] or
// a [syscall.Errno], with [errors.Is], and say what to do; what Windows' TPM Base
// Services return they name:
//
//	LOCKOUT
//	    ErrLockedOut: wrong PINs, or power cuts while a key without noDA was in
//	    use: wait with the TPM switched on, or clear the lockout with
//	    tpm2_dictionarylockout
//	AUTH_FAIL, BAD_AUTH, AUTH_MISSING, AUTH_UNAVAILABLE of the owner hierarchy
//	    ErrAuth: set Config.OwnerAuth to the password of the TPM's owner
//	    hierarchy
//	AUTH_FAIL, BAD_AUTH, AUTH_MISSING, AUTH_UNAVAILABLE of the endorsement hierarchy
//	    ErrAuth: set Config.EndorsementAuth to the password of the TPM's
//	    endorsement hierarchy
//	AUTH_FAIL, BAD_AUTH, AUTH_MISSING, AUTH_UNAVAILABLE of the parent
//	    ErrAuth: the key's parent has a password, which cannot be given here:
//	    make the key under a parent without
//	AUTH_FAIL
//	    ErrAuth: check the PIN: every further try with a wrong one counts toward
//	    a lockout
//	BAD_AUTH, AUTH_MISSING, AUTH_UNAVAILABLE
//	    ErrAuth: check the PIN
//	POLICY_FAIL, POLICY, POLICY_CC, EXPIRED
//	    ErrPolicy: the device has booted something else than the key is bound
//	    to: boot that again, or enrol with a new key
//	PCR_CHANGED
//	    ErrUnavailable: some program extends PCRs all the time: try again
//	INTEGRITY of the key's file
//	    ErrUnavailable: none of the parents that are known here has made the key,
//	    which another TPM has, or this one before it was cleared, or another
//	    parent: name that with tpm2_encodeobject -C HANDLE, or enrol with a new
//	    key
//	RETRY, YIELDED, TESTING
//	    ErrUnavailable: the TPM stayed busy: try again later, and look for
//	    another program that keeps it so
//	NV_RATE, NV_UNAVAILABLE
//	    ErrUnavailable: the TPM protects its memory from wear: try again in
//	    some minutes
//	OBJECT_MEMORY, SESSION_MEMORY, MEMORY, OBJECT_HANDLES, SESSION_HANDLES,
//	CONTEXT_GAP, ENOMEM
//	    ErrUnavailable: the TPM is full of other programs' objects or
//	    sessions: end the program that has them; on a raw device use
//	    /dev/tpmrm0, or Config.Exclusive if there are no other programs
//	NV_DEFINED
//	    ErrExists: something else is at the persistent handle: choose another
//	NV_SPACE
//	    ErrUnavailable: the TPM has no room for another persistent key: remove
//	    one, or use the key without
//	REFERENCE_H0, REFERENCE_H1, REFERENCE_S0, REFERENCE_S1, HANDLE,
//	INITIALIZE, INTEGRITY, EFAULT, EINVAL
//	    ErrUnavailable: the TPM lost its state again while it was being
//	    restored: look for what resets it, or for another program on the same
//	    device
//	HIERARCHY, DISABLED of the endorsement hierarchy
//	    ErrUnavailable: the TPM's endorsement hierarchy is disabled: enable it
//	    in the firmware setup
//	HIERARCHY, DISABLED
//	    ErrUnavailable: the TPM's owner hierarchy is disabled: enable it in
//	    the firmware setup
//	FAILURE
//	    ErrUnavailable: the TPM is in failure mode: switch the device off and
//	    on; if it comes back, the TPM is defective
//	UPGRADE, REBOOT, NEEDS_TEST, CANCELED
//	    ErrUnavailable: the TPM cannot work now: restart the device
//	COMMAND_CODE, CURVE, SCHEME, HASH, ASYMMETRIC, KDF
//	    ErrUnavailable: this TPM does not have the algorithm or the command:
//	    use ES256, which every TPM has
//	EACCES
//	    ErrUnavailable: no permission for the TPM: add the user to the group
//	    tss (usermod -a -G tss USER) and log in again
//	EPERM
//	    ErrUnavailable: the program's sandbox denies it the TPM: in a systemd
//	    unit write DeviceAllow=char-tpm rw, which holds for a TPM that comes
//	    later, too; give a container the device
//	TBS_E_ACCESS_DENIED
//	    ErrUnavailable: Windows keeps this user from the TPM: run as
//	    administrator, or as a service
//	TPM_E_COMMAND_BLOCKED
//	    ErrUnavailable: Windows blocks this command of the TPM: run as
//	    administrator, or have an administrator take it off the list of blocked
//	    commands (group policy, System, Trusted Platform Module Services)
//	TBS_E_SERVICE_NOT_RUNNING, TBS_E_SERVICE_DISABLED, TBS_E_SERVICE_START_PENDING
//	    ErrUnavailable: the service TPM Base Services does not run: start it as
//	    administrator (sc.exe config tbs start= demand, and sc.exe start tbs),
//	    or try again if it is just starting
//	TBS_E_TOO_MANY_TBS_CONTEXTS, TBS_E_TOO_MANY_RESOURCES
//	    ErrUnavailable: too many programs have the TPM open: end some of them,
//	    and use one Store in a process
//	TBS_E_COMMAND_CANCELED
//	    ErrUnavailable: Windows canceled the command, as it does before it
//	    sleeps: try again
//	EBUSY
//	    ErrUnavailable: another program has the TPM: use /dev/tpmrm0, which
//	    programs share, and not /dev/tpm0
//	ENOENT, ENXIO, ENODEV, ECONNREFUSED, TBS_E_TPM_NOT_FOUND
//	    ErrUnavailable: no TPM: enable it in the firmware setup (it may be
//	    called PTT or fTPM there), or check Config.Device
//	garbled or forged answers
//	    ErrUnavailable: something between the program and the TPM, or the TPM,
//	    is defective or hostile
//	everything else
//	    ErrUnavailable: the TPM or the connection to it failed: check that the
//	    TPM is there and its driver or simulator runs
//
// Busy codes (RETRY, YIELDED, TESTING, NV_RATE) are waited for, up to 30 seconds,
// before they are an error. After a reset or a suspend of the TPM, a lost
// connection, and where the TPM is full with what the Store itself has loaded, the
// operation is begun anew, once: on a new connection, with the key loaded again. Where
// that could be counted as a second wrong try, since the answer to the first use of a PIN
// was lost, it is so only if the TPM counts no wrong tries at all; else the error matches
// ErrAuth.
// Where any PCR is extended while a key that is bound to PCRs signs, as Linux's IMA
// does, policy and signature are repeated for up to 10 seconds. The time that counts is
// that of TPM2_PolicyPCR with all that a resource manager does around it, 6 commands, or
// 3 with a key at a persistent handle: what comes meanwhile is next, and voids the
// policy. Beside 30 extends a second, a signature in a virtual machine took 1.4
// to 2.5 times as long, and 1.1 to 1.4 with a persistent handle. Where extends are as frequent as those
// commands take, each signature is repeated some times; then Persist the key, or have IMA
// measure less.
// TPM2_Startup and TPM2_SelfTest are sent where that was forgotten. A connection on which a command
// is not answered within a minute is given up, once nobody waits for that command
// any more.
//
// ErrAuth, ErrLockedOut and an ErrPolicy for other reasons are never tried again by
// the Store. The cause of an ErrLockedOut is a [LockoutError], which says when the
// lockout ends; keys that are made here without a PIN go on working in one.
//
// The key files have their own faults. keystore.ErrCorrupt: the key in the file, or what
// this package has added to it, is torn or damaged, or there is none. What else is in the
// file may be damaged: [Description] tells, and it stays so. keystore.ErrUnavailable with [errors.ErrUnsupported]: the key is healthy, but
// cannot sign ES256 or ES384, or its parent is in another hierarchy. keystore.ErrPolicy
// with [errors.ErrUnsupported]: the key's policy is not known here, or not in its file.
// keystore.ErrUnavailable alone: others may read the file, and the text has the mode to
// set; or the operating system refuses.
//
// keystore.ErrKeyLost is certain: the key's parent, whose Name the file has, is
// another one, or is not in the TPM, which lists its handles and has the hierarchy
// enabled. An ECC storage root key that somebody has removed from its persistent handle,
// or replaced there, is made again.
//
// Some Linux kernels (6.1.192 does) answer EINVAL to a handle that is not of the
// open file, and EFAULT to all that follows if there is a session in it. The device
// is opened anew then.
package tpm

// A map of the files, from the outside in.
//
// What applications call:
//
//	guide.go           the package's documentation, after this file: PIN, evidence, platforms
//	store.go           Config and Store
//	keys.go            a Store's keys: create, open, delete, list
//	key.go             one key, and its signatures
//	import.go          keys that were made elsewhere
//	persist.go         keys at persistent handles
//	describe.go        what a key's file says
//	checkpcrs.go       whether the PCRs are those that a key is bound to
//	status.go          what a TPM says of itself
//	evidence.go        what an attester is sent about key and boot
//	statement.go       and in what form
//	endorsement.go     what it is sent about the TPM
//	attestationkey.go  the key that signs both, and its certificates
//	activate.go        the proof that it is in that TPM
//	eventlog.go        the logs of Linux that explain PCRs
//	eventlog_linux.go  and what to wait for before they are read
//	eventlog_other.go
//	tcglog_windows.go  the measured-boot log of Windows
//	tcglog_other.go
//	conn.go            a stream as a connection to a TPM
//
// Commands to the TPM, by what they are for:
//
//	create.go          a new key
//	load.go            a key is made ready for use
//	parent.go          what keys are wrapped with
//	savedparent.go     the storage root key, saved
//	object.go          parents, endorsement and attestation key have this in common
//	sign.go            TPM2_Sign
//	session.go         the authorization of a command
//	policy.go          keys that are bound to PCRs
//	pcr.go             the values of PCRs
//	inspect.go         for status.go
//	capability.go      properties and lists
//	nv.go              NV indexes
//	ekcertificate.go   certificates of endorsement keys
//	ektemplates.go     and what makes those keys
//
// PINs and what goes wrong:
//
//	pin.go             whether a key needs its PIN, and who is asked for it
//	refusals.go        PINs that were wrong
//	counted.go         what may be counted as a wrong try though its answer was lost
//	note.go            what was learnt about a key, into its file
//	idle.go            PINs and sessions that are kept for a while
//	errors.go          what each error means
//	tbs.go             what Windows' TPM Base Services return
//	fips.go            what Go does not allow under fips140=only
//
// One TPM for all:
//
//	queue.go           one operation at a time
//	connection.go      the connection, opened and given up
//	send.go            one command, repeated while the TPM is busy
//	authorized.go      commands with one session
//	query.go           commands that take no authorization
//	held.go            what is in the TPM of ours
//	close.go           and how it gets out
//	socket.go          a TPM behind a socket
//	device_linux.go    a TPM of this machine
//	device_windows.go
//	device_other.go
//
// The disk:
//
//	folder.go          key files by their names
//	internal/keyfile   what is in them
