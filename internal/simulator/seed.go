package simulator

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// The ids of the demo data.
const (
	// DemoCourse and DemoBatch are what to try first: every eligible learner of it gets a certificate. Signed with key 2.
	DemoCourse = "do_2128410273679114241112"
	DemoBatch  = "0128821148183429120"
	// LargeBatch has 25,000 learners, all eligible; its certificates are not signed, to keep trials of speed light.
	LargeCourse = "do_2129133652813824001101"
	LargeBatch  = "0129133652813824000"
	// TwoTemplateBatch's course has the templates DemoCertificate and MeritCertificate.
	TwoTemplateCourse = "do_2129190384427499521207"
	TwoTemplateBatch  = "0129190384427499520"
	// RoughBatch has learners whose data is bad, each in another way.
	RoughCourse = "do_2129251102447697921333"
	RoughBatch  = "0129251102447697920"
	// EmptyBatch has nobody.
	EmptyBatch = "0129300947385221120"
	// BrokenTemplateBatch's template is no zip archive: nobody of it can get a certificate until that is put right.
	BrokenTemplateCourse = "do_2129354418832179201458"
	BrokenTemplateBatch  = "0129354418832179200"

	// DemoCertificate is the name of the template of every course, MeritCertificate the second of TwoTemplateCourse.
	DemoCertificate  = "100PercentCompletionCertificate"
	MeritCertificate = "MeritCertificate"

	// DemoOrg and RoughOrg are root organisations with signing keys 2 and 3.
	DemoOrg  = "0127920475840593920"
	RoughOrg = "0127933201845370880"

	// DemoOfficer created the batches and may issue them; DemoMentor is a mentor of DemoBatch.
	DemoOfficer = "874ed8a5-782e-4f6c-8f36-e0288455901e"
	DemoMentor  = "95e4942d-cbe8-477d-aebd-ad8e6de4bfc8"

	// DemoBatchSize and LargeBatchSize are the numbers of enrolments.
	DemoBatchSize  = 600
	LargeBatchSize = 25_000
)

// The learners of RoughBatch, by what is wrong with them.
var (
	RoughUnknownUser = uuidOf("rough", 0) // unknown to learner-service
	RoughNoName      = uuidOf("rough", 1) // has no name at all
	RoughBadDate     = uuidOf("rough", 2) // completed on a day that cannot be read
	RoughBlocked     = uuidOf("rough", 3) // the account is blocked
	RoughUnindexed   = uuidOf("rough", 4) // search does not find the user, reads do
	RoughNoAddress   = uuidOf("rough", 5) // neither e-mail nor phone
	RoughNullName    = uuidOf("rough", 6) // both names are the text "null"
	RoughNoOrg       = uuidOf("rough", 7) // belongs to no root organisation
)

// DemoDataset is the seed data: the same at every call. filesURL is the address of the files server, where the
// templates are.
func DemoDataset(filesURL string) Dataset {
	d := Dataset{
		Organisations: []Organisation{
			{ID: DemoOrg, Name: "Gujarat Council of Educational Research and Training", SignKeys: []string{"2"}, EncKeys: []string{"5"}},
			{ID: RoughOrg, Name: "State Institute of Open Schooling", SignKeys: []string{"3"}},
		},
		Courses: demoCourses(filesURL),
		Batches: demoBatches(),
		Users: []User{
			{ID: DemoOfficer, FirstName: "Meera", LastName: "Joshi", UserName: "meera", RootOrgID: DemoOrg, Email: "meera@gcert.example.in", Roles: []string{"PUBLIC", "COURSE_CREATOR", "ORG_ADMIN"}},
			{ID: DemoMentor, FirstName: "Arjun", LastName: "Iyer", UserName: "arjun", RootOrgID: DemoOrg, Email: "arjun@gcert.example.in", Roles: []string{"PUBLIC", "COURSE_MENTOR"}},
		},
	}
	d.demoBatch()
	d.plainBatch("large", LargeBatch, LargeCourse, LargeBatchSize)
	d.plainBatch("two", TwoTemplateBatch, TwoTemplateCourse, 60)
	d.plainBatch("broken", BrokenTemplateBatch, BrokenTemplateCourse, 40)
	d.roughBatch()
	return d
}

func demoCourses(filesURL string) []Course {
	completion := demoTemplate(filesURL, DemoCertificate, TemplatePath, "2")
	merit := demoTemplate(filesURL, MeritCertificate, TemplateSecondPath, "2")
	unsigned := demoTemplate(filesURL, DemoCertificate, TemplatePath, "")
	broken := demoTemplate(filesURL, DemoCertificate, TemplateBrokenPath, "2")
	rough := demoTemplate(filesURL, DemoCertificate, TemplatePath, "3")
	return []Course{
		{ID: DemoCourse, Name: "Foundations of Reading and Numeracy", Templates: []Template{completion}},
		{ID: LargeCourse, Name: "Teaching with Digital Textbooks", Templates: []Template{unsigned}},
		{ID: TwoTemplateCourse, Name: "Science Through Experiments", Templates: []Template{completion, merit}},
		// Kept as text, as a course is whose metadata was written around the service.
		{ID: RoughCourse, Name: "Inclusive Classrooms", RawCertTemplate: encode(string(mustJSON([]Template{rough})))},
		{ID: BrokenTemplateCourse, Name: "School Leadership", Templates: []Template{broken}},
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types: cannot fail
	}
	return b
}

// demoTemplate is complete for both eras: 1.0.0 falls over without publicKey, later ones want criteria.
func demoTemplate(filesURL, name, path, keyID string) Template {
	publicKey := keyID
	if publicKey == "" {
		publicKey = "2"
	}
	return Template{
		Name: name, HTMLTemplate: filesURL + path, KeyID: keyID, Narrative: "course completion certificate",
		Issuer: Issuer{Name: "Gujarat Council of Educational Research and Training", URL: "https://gcert.example.in", PublicKey: []string{publicKey}},
		SignatoryList: []Signatory{
			{Name: "Dr. Kavita Desai", ID: "Dr. Kavita Desai", Designation: "Director", Image: filesURL + "/sign.png"},
		},
		Notify: map[string]string{
			"subject": "Your course completion certificate", "emailTemplateType": "defaultCertTemp",
			"stateImgUrl": filesURL + "/sign.png", "regards": "Gujarat Council", "regardsperson": "Director",
		},
	}
}

func demoBatches() []Batch {
	batch := func(id, course, name string, status int) Batch {
		return Batch{ID: id, CourseID: course, Name: name, Status: status, CreatedBy: DemoOfficer, StartDate: "2019-07-01", EndDate: "2019-09-30"}
	}
	list := []Batch{
		batch(DemoBatch, DemoCourse, "District teachers, July to September", 2),
		batch(LargeBatch, LargeCourse, "All districts", 2),
		batch(TwoTemplateBatch, TwoTemplateCourse, "Science teachers", 1),
		batch(RoughBatch, RoughCourse, "Carried over from the old portal", 2),
		batch(EmptyBatch, DemoCourse, "Opens next month", 0),
		batch(BrokenTemplateBatch, BrokenTemplateCourse, "Head teachers", 2),
	}
	list[0].Mentors = []string{DemoMentor}
	return list
}

// uuidOf is a deterministic id in the shape of a random UUID.
func uuidOf(space string, n int) string {
	sum := sha256.Sum256([]byte(space + "/" + strconv.Itoa(n)))
	sum[6], sum[8] = sum[6]&0x0f|0x40, sum[8]&0x3f|0x80
	var out [36]byte
	at := 0
	for i, group := range []int{4, 2, 2, 2, 6} {
		if i > 0 {
			out[at] = '-'
			at++
		}
		from := []int{0, 4, 6, 8, 10}[i]
		at += hex.Encode(out[at:], sum[from:from+group])
	}
	return string(out[:])
}

// demoUser makes the n-th learner of a batch: names of four scripts, a few without e-mail, some with a phone.
func demoUser(space string, n int) User {
	names := nameLists[n%len(nameLists)]
	u := User{
		ID: uuidOf(space, n), FirstName: names.first[n/4%len(names.first)], LastName: names.last[n/28%len(names.last)],
		UserName: fmt.Sprintf("%s%05d", space, n), RootOrgID: DemoOrg,
	}
	if n%23 != 7 {
		u.Email = u.UserName + "@learners.example.in"
	}
	if n%3 == 1 {
		u.Phone = fmt.Sprintf("98%08d", 25_000_000+n)
	}
	switch n % 37 {
	case 11:
		u.LastName = ""
	case 19:
		u.LastName = "null"
	}
	return u
}

// completed is the n-th learner's completion: most as epoch milliseconds, some as text.
func completed(n int) string {
	t := time.Date(2019, 8, 1, 4, 30, 0, 0, time.UTC).Add(time.Duration(n%60) * 13 * time.Hour)
	switch n % 41 {
	case 5:
		return t.Format("2006-01-02")
	case 17:
		return t.Format("2006-01-02 15:04:05:000+0000")
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

// plainBatch enrols n learners who have all completed.
func (d *Dataset) plainBatch(space, batch, course string, n int) {
	for i := range n {
		u := demoUser(space, i)
		d.Users = append(d.Users, u)
		d.Enrolments = append(d.Enrolments, Enrolment{
			BatchID: batch, UserID: u.ID, CourseID: course, Active: true, Status: 2, CompletedOn: completed(i),
		})
	}
}

// demoBatch mixes those who completed with those who have not, left, or already hold the certificate.
func (d *Dataset) demoBatch() {
	for i := range DemoBatchSize {
		u := demoUser("demo", i)
		e := Enrolment{BatchID: DemoBatch, UserID: u.ID, CourseID: DemoCourse, Active: true, Status: 2, CompletedOn: completed(i)}
		switch {
		case i%10 == 3:
			e.Status, e.CompletedOn = 1, ""
		case i%20 == 9:
			e.Status, e.CompletedOn = 0, ""
		case i%25 == 12:
			e.Active = false
		case i%60 == 31:
			e.CompletedOn = ""
		case i == 200, i == 400:
			e.Certificates = []EnrolmentCertificate{{
				Name: DemoCertificate, ID: uuidOf("earlier", i), Token: "E6P2R8", LastIssuedOn: "2019-08-30T10:20:30.000+0000",
				URL: DemoOrg + "/" + DemoBatch + "/" + uuidOf("earlier", i) + ".pdf",
			}}
		}
		d.Users = append(d.Users, u)
		d.Enrolments = append(d.Enrolments, e)
	}
}

// roughBatch has one learner for each thing that goes wrong with a learner, and twelve with whom nothing does.
func (d *Dataset) roughBatch() {
	enrol := func(id, completedOn string) {
		d.Enrolments = append(d.Enrolments, Enrolment{
			BatchID: RoughBatch, UserID: id, CourseID: RoughCourse, Active: true, Status: 2, CompletedOn: completedOn,
		})
	}
	enrol(RoughUnknownUser, completed(0))
	bad := []User{
		{ID: RoughNoName, RootOrgID: RoughOrg, UserName: "rough1", Email: "rough1@learners.example.in"},
		{ID: RoughBadDate, FirstName: "Harish", LastName: "Patel", RootOrgID: RoughOrg, UserName: "rough2", Email: "rough2@learners.example.in"},
		{ID: RoughBlocked, FirstName: "Nalini", LastName: "Shah", RootOrgID: RoughOrg, UserName: "rough3", Email: "rough3@learners.example.in", Blocked: true},
		{ID: RoughUnindexed, FirstName: "Omkar", LastName: "Rao", RootOrgID: RoughOrg, UserName: "rough4", Email: "rough4@learners.example.in", Unindexed: true},
		{ID: RoughNoAddress, FirstName: "Padma", LastName: "Nair", RootOrgID: RoughOrg, UserName: "rough5"},
		{ID: RoughNullName, FirstName: "null", LastName: "null", RootOrgID: RoughOrg, UserName: "rough6", Email: "rough6@learners.example.in"},
		{ID: RoughNoOrg, FirstName: "Qadir", LastName: "Khan", UserName: "rough7", Email: "rough7@learners.example.in"},
	}
	for i, u := range bad {
		d.Users = append(d.Users, u)
		when := completed(i)
		if u.ID == RoughBadDate {
			when = "sometime in August"
		}
		enrol(u.ID, when)
	}
	for i := range 12 {
		u := demoUser("well", i)
		u.RootOrgID = RoughOrg
		d.Users = append(d.Users, u)
		enrol(u.ID, completed(i))
	}
}

// nameLists are names in the four scripts that certificates are drawn in.
var nameLists = []struct{ first, last []string }{
	{
		[]string{"Asha", "Ravi", "Lakshmi", "Joseph", "Fatima", "Gurpreet", "Ananya"},
		[]string{"Rao", "Sharma", "D'Souza", "Krishnan", "Begum", "Singh", "José"},
	},
	{
		[]string{"श्रीनिवास", "लक्ष्मी", "शक्ति", "आशा", "कृष्णा", "ज्ञानेश्वर", "प्रीति"},
		[]string{"शर्मा", "कुलकर्णी", "त्रिपाठी", "वर्मा", "श्रीवास्तव", "मिश्रा", "द्विवेदी"},
	},
	{
		[]string{"જ્ઞાનદીપ", "કૃપા", "શ્રદ્ધા", "હર્ષદ", "ભક્તિ", "નિર્મળા", "ઇચ્છા"},
		[]string{"પટેલ", "દેસાઈ", "ત્રિવેદી", "શાહ", "મિસ્ત્રી", "જોશી", "ક્ષત્રિય"},
	},
	{
		[]string{"கௌசல்யா", "ஸ்ரீதேவி", "முருகன்", "கிருஷ்ணன்", "லட்சுமி", "தமிழ்ச்செல்வி", "ஷண்முகம்"},
		[]string{"சுப்பிரமணியன்", "ராஜேந்திரன்", "குமார்", "வெங்கடேசன்", "பாலகிருஷ்ணன்", "நடராஜன்", "ஐயர்"},
	},
}
