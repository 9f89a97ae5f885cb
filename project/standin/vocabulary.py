"""Words that give a text away, in the languages of the example texts.

Everything is in case-folded form, and compared with case-folded text.
"""

from __future__ import annotations

import re


def _words(listed: str) -> frozenset[str]:
    return frozenset(word.strip() for word in listed.casefold().split(",") if word.strip())


# Labels as they stand before a colon or in the first column of a table.
LABELS: dict[str, frozenset[str]] = {
    "name": _words(
        "name, full name, contact, contact person, attn, attention, ansprechpartner, "
        "ansprechpartnerin, nom, nom et prénom, contacto, nombre, nombre completo, nome, "
        "nome completo, imię i nazwisko, osoba kontaktowa, jméno, jméno a příjmení, "
        "kontaktní osoba, ad soyad, adı soyadı, yetkili, όνομα, ονοματεπώνυμο, υπεύθυνος, имя, "
        "фио, контактное лицо, ім'я, піб, контактна особа, الاسم, الاسم الكامل, שם, שם מלא, "
        "איש קשר, نام, نام و نام خانوادگی, नाम, संपर्क व्यक्ति, ชื่อ, ชื่อผู้ติดต่อ, "
        "ชื่อ-นามสกุล, 姓名, 联系人, 聯絡人, 氏名, お名前, 担当, 担当者, 이름, 성명, 담당자, "
        "họ tên, họ và tên, người liên hệ, naam, namn"
    ),
    "company": _words(
        "company, organisation, organization, employer, firma, unternehmen, entreprise, société, "
        "empresa, razón social, azienda, ditta, nazwa firmy, společnost, şirket, firma adı, "
        "εταιρεία, επωνυμία, компания, организация, компанія, організація, الشركة, شركة, חברה, "
        "شرکت, कंपनी, บริษัท, 公司, 单位, 会社, 会社名, 회사, 회사명, công ty, bedrijf"
    ),
    "seller": _words(
        "seller, from, vendor, supplier, issued by, verkäufer, lieferant, vendeur, fournisseur, "
        "vendedor, proveedor, emisor, fornecedor, emitente, sprzedawca, dodavatel, satıcı, "
        "πωλητής, εκδότης, продавец, поставщик, постачальник, продавець, البائع, المورد, המוכר, "
        "ספק, فروشنده, विक्रेता, ผู้ขาย, 卖方, 销售方, 販売元, 請求元, 공급자, người bán, "
        "đơn vị bán"
    ),
    "buyer": _words(
        "buyer, bill to, billed to, invoice to, sold to, customer, client, kunde, käufer, "
        "rechnung an, rechnungsempfänger, acheteur, facturé à, cliente, comprador, facturar a, "
        "nabywca, odběratel, zákazník, alıcı, müşteri, πελάτης, αγοραστής, покупатель, заказчик, "
        "покупець, замовник, العميل, المشتري, לכבוד, הלקוח, خریدار, مشتری, ग्राहक, क्रेता, "
        "ผู้ซื้อ, ลูกค้า, 买方, 购买方, 客户, お客様, 請求先, 宛先, 공급받는자, 고객, khách hàng, "
        "người mua"
    ),
    "email": _words("email, e-mail, mail"),
    "phone": _words(
        "phone, tel, telephone, mobile, cell, telefon, mobil, tél, téléphone, portable, teléfono, "
        "móvil, telefone, telemóvel, celular, komórka, gsm, τηλέφωνο, κινητό, телефон, тел, моб, "
        "هاتف, الهاتف, جوال, טלפון, נייד, تلفن, موبایل, फ़ोन, फोन, मोबाइल, โทร, โทรศัพท์, 电话, "
        "手机, 電話, 電話番号, 전화, 연락처, điện thoại, đt, sđt"
    ),
    "role": _words(
        "role, title, job title, position, funktion, fonction, poste, cargo, puesto, função, "
        "stanowisko, funkce, pozice, görev, ünvan, unvan, θέση, ιδιότητα, должность, посада, "
        "المسمى الوظيفي, الوظيفة, תפקיד, سمت, पद, पदनाम, ตำแหน่ง, 职位, 职务, 役職, 직책, 직위, "
        "chức vụ, chức danh"
    ),
    "address": _words(
        "address, anschrift, adresse, dirección, domicilio, endereço, morada, adres, adresa, "
        "διεύθυνση, адрес, адреса, العنوان, כתובת, آدرس, نشانی, पता, ที่อยู่, 地址, 住所, 주소, "
        "địa chỉ"
    ),
    "subject": _words(
        "subject, re, betreff, objet, asunto, assunto, temat, předmět, konu, θέμα, тема, الموضوع, "
        "נושא, הנידון, موضوع, विषय, เรื่อง, หัวข้อ, 主题, 主旨, 件名, 제목, chủ đề, tiêu đề"
    ),
    "product": _words(
        "product, item, device, model, produkt, artikel, gerät, produit, article, producto, "
        "artículo, produto, urządzenie, výrobek, ürün, προϊόν, товар, изделие, модель, виріб, "
        "المنتج, מוצר, محصول, उत्पाद, สินค้า, 产品, 型号, 商品, 製品, 제품, 상품, sản phẩm"
    ),
    "invoice": _words(
        "invoice, invoice number, invoice no, invoice #, rechnung, rechnungsnummer, rechnung nr, "
        "rechnungs-nr, facture, facture n°, numéro de facture, n° de facture, factura, "
        "factura n.º, número de factura, fatura, fatura n.º, nota fiscal, faktura, faktura nr, "
        "faktura vat nr, numer faktury, číslo faktury, faktura č, fatura no, fatura numarası, "
        "τιμολόγιο, αριθμός τιμολογίου, счёт, счет №, номер счёта, рахунок, рахунок №, "
        "номер рахунку, رقم الفاتورة, فاتورة رقم, חשבונית, חשבונית מס, מספר חשבונית, "
        "شماره فاکتور, चालान संख्या, बीजक संख्या, เลขที่ใบแจ้งหนี้, เลขที่, 发票号码, 发票号, "
        "請求書番号, 송장 번호, 청구서 번호, số hóa đơn, hóa đơn số"
    ),
    "order": _words(
        "order, ordine, numero ordine, order number, order no, order id, bestellung, "
        "bestellnummer, bestell-nr, commande, numéro de commande, pedido, número de pedido, "
        "nº de pedido, encomenda, zamówienie, numer zamówienia, objednávka, číslo objednávky, "
        "sipariş, sipariş no, sipariş numarası, παραγγελία, αριθμός παραγγελίας, заказ, "
        "номер заказа, замовлення, номер замовлення, رقم الطلب, מספר הזמנה, הזמנה, شماره سفارش, "
        "ऑर्डर, ऑर्डर नंबर, ऑर्डर संख्या, คำสั่งซื้อ, เลขที่คำสั่งซื้อ, หมายเลขคำสั่งซื้อ, 订单, "
        "订单号, 注文番号, 주문번호, 주문 번호, mã đơn hàng, đơn hàng"
    ),
    "due": _words(
        "due, due date, payment due, payable by, pay by, fällig, fällig am, zahlbar bis, "
        "zahlungsziel, échéance, date d'échéance, à payer avant le, vencimiento, "
        "fecha de vencimiento, vencimento, data de vencimento, termin płatności, splatnost, "
        "datum splatnosti, son ödeme, son ödeme tarihi, vade, vade tarihi, ημερομηνία λήξης, "
        "πληρωτέο έως, λήξη, срок оплаты, оплатить до, строк оплати, сплатити до, "
        "تاريخ الاستحقاق, לתשלום עד, מועד תשלום, سررسید, تاریخ سررسید, देय तिथि, วันครบกำหนด, "
        "ครบกำหนด, 付款截止, 到期日, お支払期限, 支払期限, 납부 기한, 지급 기한, hạn thanh toán"
    ),
    "total": _words(
        "total, grand total, total due, amount due, balance due, total amount, gesamt, "
        "gesamtbetrag, rechnungsbetrag, endbetrag, zu zahlen, total ttc, net à payer, montant dû, "
        "total a pagar, importe total, valor total, total geral, razem, do zapłaty, "
        "razem do zapłaty, suma, celkem, celkem k úhradě, k úhradě, toplam, genel toplam, "
        "ödenecek tutar, σύνολο, γενικό σύνολο, πληρωτέο, итого, итого к оплате, всего к оплате, "
        'всього, разом, до сплати, الإجمالي, المجموع, المبلغ المستحق, סה"כ, סה״כ לתשלום, '
        'סה"כ לתשלום, סך הכל, جمع کل, مبلغ قابل پرداخت, कुल, कुल राशि, कुल देय, รวม, รวมทั้งสิ้น, '
        "ยอดรวม, ยอดรวมทั้งสิ้น, 合计, 总计, 总额, 合計, ご請求金額, 総額, 합계, 총액, tổng cộng, "
        "tổng tiền, tổng thanh toán"
    ),
}

# Before the name of whoever signs.
SIGN_OFFS = tuple(
    _words(
        "best regards, kind regards, regards, many thanks, thanks, thank you, cheers, sincerely, "
        "yours sincerely, yours faithfully, best, best wishes, xoxo, mit freundlichen grüßen, "
        "viele grüße, beste grüße, freundliche grüße, liebe grüße, herzliche grüße, gruß, mfg, "
        "cordialement, bien cordialement, bien à vous, salutations, saludos, saludos cordiales, "
        "un saludo, atentamente, gracias, muchas gracias, atenciosamente, cumprimentos, "
        "com os melhores cumprimentos, obrigado, obrigada, abraços, pozdrawiam, z poważaniem, "
        "z wyrazami szacunku, s pozdravem, děkuji, saygılarımla, saygılarımızla, teşekkürler, "
        "iyi çalışmalar, με εκτίμηση, ευχαριστώ, φιλικά, с уважением, спасибо, з повагою, дякую, "
        "مع التحية, مع خالص التحية, مع أطيب التحيات, تحياتي, وتفضلوا بقبول فائق الاحترام, شكرا, "
        "בברכה, בתודה, תודה, با احترام, با تشکر, सादर, धन्यवाद, भवदीय, भवदीया, ขอแสดงความนับถือ, "
        "ขอบคุณครับ, ขอบคุณค่ะ, 此致, 敬上, 祝好, 谢谢, 以上、よろしくお願いいたします, "
        "よろしくお願いいたします, 敬具, 감사합니다, trân trọng, xin cảm ơn, cảm ơn, "
        "met vriendelijke groet, med vänlig hälsning, cordiali saluti, distinti saluti"
    )
)

GREETINGS = _words(
    "hi, hello, hey, dear, hallo, guten, liebe, lieber, liebes, sehr, moin, bonjour, bonsoir, "
    "salut, madame, monsieur, hola, buenos, buenas, estimado, estimada, olá, oi, bom, boa, "
    "prezado, prezada, caro, cara, dzień, szanowni, cześć, dobrý, vážení, ahoj, merhaba, iyi, "
    "sayın, selam, γεια, καλημέρα, αγαπητοί, здравствуйте, добрый, доброго, добрий, привет, "
    "вітаю, уважаемые, шановні, السلام, مرحبا, مرحبًا, שלום, היי, سلام, नमस्ते, สวัสดีครับ, "
    "สวัสดีค่ะ, 您好, 你好, 안녕하세요, chào, xin, kính, re, fwd, fw, aw, wg"
)

# "My name is", with what may be a name after it; or before it, in Japanese and Korean.
INTRODUCTIONS = re.compile(
    r"(?:\bmy name is|\bI am called|\bthis is|\bmein Name ist|\bich heiße|\bje m['’]appelle|"
    r"\bje suis|\bme llamo|\bsoy|\bmi nombre es|\bmeu nome é|\bchamo-me|\bme chamo|"
    r"\bnazywam się|\bjmenuji se|\badım|\bbenim adım|\bμε λένε|\bονομάζομαι|\bменя зовут|"
    r"\bмене звати|\bзвати мене|اسمي|שמי|نام من|मेरा नाम|ผมชื่อ|ดิฉันชื่อ|我叫|我是|"
    r"저는|tôi là|tôi tên là|tên tôi là)[ :]{0,2}"
    r"(?P<name>[^\W\d_][\w.'’\-]{0,30}(?: [^\W\d_][\w.'’\-]{0,30}){0,3})",
    re.IGNORECASE,
)

# A company gives itself away by its legal form, after the name or before it.
LEGAL_FORM_AFTER = re.compile(
    r"(?<!\w)(?P<company>[A-ZÀ-ÞŁŚŻŹČŘŠŽİŞÇĞΑ-ΩА-ЯЁІЇЄ][\w&.'’\-]{0,30}"
    r"(?: (?:[A-ZÀ-ÞŁŚŻŹČŘŠŽİŞÇĞΑ-ΩА-ЯЁІЇЄdiv][\w.'’\-]{0,30}|&)){0,5}?,? "
    r"(?:GmbH(?: & Co\. KG)?|AG|KG|UG|e\.K\.|Ltd\.?|Limited|LLC|LLP|PLC|Inc\.?|Corp\.?|Co\.|"
    r"Pty Ltd|Pvt\.? Ltd\.?|B\.V\.|N\.V\.|AB|ApS|A/S|Oy|SAS|SARL|S\.A\.R\.L\.|S\.A\.|S\.L\.|SL|"
    r"SA|S\.r\.l\.|S\.p\.A\.|Lda\.?|Ltda\.?|EIRELI|sp\. z o\.o\.|s\.r\.o\.|a\.s\.|"
    r"A\.Ş\.|Ltd\. Şti\.|San\. ve Tic\. A\.Ş\.|Α\.Ε\.|Ε\.Π\.Ε\.|Ο\.Ε\.|בע[\"״]מ))(?!\w)"
)
LEGAL_FORM_BEFORE = re.compile(
    r"(?P<company>(?:ООО|ОАО|ЗАО|ТОВ|ПрАТ|ФОП|ИП) [«\"“][^»\"”\n]{1,60}[»\"”]|"
    r"(?:\bشركة|\bمؤسسة|\bشرکت) [^\n،,.:؛()]{2,40}|"
    r"บริษัท [^\n]{2,60}? จำกัด(?: \(มหาชน\))?|"
    r"(?:株式会社|有限会社|合同会社|주식회사 ?|㈜)[^\s、。,，()（）：:]{1,30}|"
    r"[^\s、。,，()（）：:]{1,30}(?:株式会社|有限公司|股份公司)|"
    r"\bCông ty (?:TNHH|CP|Cổ phần)[^\n,.;:]{2,50})"
)

MONTHS: dict[str, int] = {}
for _names in (
    "january february march april may june july august september october november december",
    "jan feb mar apr may jun jul aug sep oct nov dec",
    "januar februar märz april mai juni juli august september oktober november dezember",
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada "
    "grudnia",
    "ledna února března dubna května června července srpna září října listopadu prosince",
    "ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık",
    "ιανουαρίου φεβρουαρίου μαρτίου απριλίου μαΐου ιουνίου ιουλίου αυγούστου σεπτεμβρίου "
    "οκτωβρίου νοεμβρίου δεκεμβρίου",
    "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    "січня лютого березня квітня травня червня липня серпня вересня жовтня листопада грудня",
    "يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر",
    "ינואר פברואר מרץ אפריל מאי יוני יולי אוגוסט ספטמבר אוקטובר נובמבר דצמבר",
    "जनवरी फ़रवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर अक्टूबर नवंबर दिसंबर",
    "มกราคม กุมภาพันธ์ มีนาคม เมษายน พฤษภาคม มิถุนายน กรกฎาคม สิงหาคม กันยายน ตุลาคม พฤศจิกายน ธันวาคม",
):
    MONTHS |= {name: number for number, name in enumerate(_names.split(), start=1)}

CURRENCY_SIGNS = {
    "R$": "BRL",
    "zł": "PLN",
    "Kč": "CZK",
    "руб": "RUB",
    "грн": "UAH",
    "ريال": "SAR",
    "ر.س": "SAR",
    "ریال": "IRR",
    "تومان": "IRR",
    "บาท": "THB",
    "元": "CNY",
    "円": "JPY",
    "원": "KRW",
    "US$": "USD",
    "€": "EUR",
    "£": "GBP",
    "₺": "TRY",
    "TL": "TRY",
    "₽": "RUB",
    "₴": "UAH",
    "₪": "ILS",
    "₹": "INR",
    "฿": "THB",
    "₩": "KRW",
    "₫": "VND",
    "đ": "VND",
    "￥": "JPY",
    "¥": "CNY",
    "$": "USD",
}
CURRENCY_CODES = frozenset(
    code.upper()
    for code in _words(
        "EUR, USD, GBP, CHF, PLN, CZK, TRY, RUB, UAH, SAR, AED, EGP, ILS, IRR, INR, THB, CNY, "
        "JPY, KRW, VND, BRL, MXN, SEK, NOK, DKK, CAD, AUD, HUF, RON"
    )
)

# Words in the text that speak for a value of an enumeration. The values' own words count as well.
HINTS: dict[str, frozenset[str]] = {
    "billing": _words(
        "invoice, charged, charge, refund, payment, billing, paid twice, overcharged, rechnung, "
        "abgebucht, abbuchung, zahlung, rückerstattung, facture, facturé, débité, prélèvement, "
        "remboursement, rimborso, addebito, cobro, cobrado, cargo, reembolso, cobrança, cobraram, "
        "faktura, pobrano, zwrot pieniędzy, opłata, účtován, platba, fatura, ödeme, ücret, iade, "
        "χρέωση, χρεώθηκα, списали, списание, деньги, возврат, гроші, кошти, оплат, خصم, فاتورة, "
        "مبلغ, استرداد, חויב, חיוב, החזר, کسر شده, پرداخت, بازگشت وجه, पैसे, भुगतान, रिफंड, ชำระ, "
        "คืนเงิน, เรียกเก็บ, 扣款, 退款, 付款, 返金, 請求, 二重, 결제, 환불, thanh toán, "
        "hoàn tiền, trừ tiền"
    ),
    "delivery": _words(
        "delivery, delivered, parcel, package, shipping, courier, tracking, lieferung, paket, "
        "zustellung, sendung, geliefert, livraison, colis, livré, envío, pacco, consegna, "
        "paquete, entrega, encomenda não, não chegou, entregue, paczka, przesyłka, dostawa, "
        "kurier, zásilka, balík, doručen, kargo, teslimat, δέμα, παράδοση, αποστολή, посылка, "
        "доставка, курьер, посилка, доставк, شحنة, التوصيل, الشحن, משלוח, חבילה, بسته, ارسال, "
        "डिलीवरी, पार्सल, พัสดุ, จัดส่ง, 快递, 包裹, 物流, 発送, 配送, 届, 배송, 택배, giao hàng, "
        "gói hàng"
    ),
    "technical": _words(
        "error, crash, crashes, bug, broken, not working, does not work, fehler, abgestürzt, "
        "rotta, rotto, stürzt, funktioniert nicht, defekt, kaputt, erreur, plante, "
        "ne fonctionne pas, en panne, no funciona, falla, se cierra, não funciona, erro, trava, "
        "nie działa, błąd, nefunguje, chyba, padá, çalışmıyor, hata, δεν λειτουργεί, σφάλμα, "
        "не работает, ошибка, вылетает, не працює, помилка, не включается, لا يعمل, خطأ, لا تعمل, "
        "לא עובד, שגיאה, תקלה, کار نمی‌کند, خطا, काम नहीं कर, त्रुटि, ใช้งานไม่ได้, ขัดข้อง, "
        "เสีย, 无法, 报错, 故障, 崩溃, エラー, 動きません, 不具合, 오류, 작동하지, 고장, "
        "không hoạt động, lỗi"
    ),
    "account": _words(
        "password, log in, login, account, locked out, sign in, passwort, anmelden, konto, "
        "gesperrt, mot de passe, compte, connexion, contraseña, cuenta, iniciar sesión, senha, "
        "conta, hasło, zalogować, heslo, účet, přihlásit, şifre, hesab, giriş, κωδικός, "
        "λογαριασμό, пароль, аккаунт, войти, акаунт, увійти, كلمة المرور, حسابي, הסיסמה, סיסמה, "
        "חשבון שלי, رمز عبور, حساب کاربری, पासवर्ड, खाता, लॉगिन, รหัสผ่าน, บัญชี, 密码, 账号, "
        "登录, パスワード, ログイン, アカウント, 비밀번호, 계정, 로그인, mật khẩu, tài khoản, "
        "đăng nhập"
    ),
    "urgent": _words(
        "urgent, urgently, asap, immediately, emergency, dringend, sofort, umgehend, urgente, "
        "urgence, immédiatement, de toute urgence, cuanto antes, inmediatamente, pilne, "
        "natychmiast, naléhavé, okamžitě, acil, hemen, επείγον, αμέσως, срочно, немедленно, "
        "терміново, негайно, عاجل, فورا, فورًا, דחוף, בדחיפות, فوری, فوراً, तुरंत, अत्यावश्यक, "
        "ด่วน, เร่งด่วน, 紧急, 马上, 尽快, 至急, 緊急, 급합니다, 긴급, 빨리, gấp, khẩn"
    ),
    "high": _words(
        "important, unacceptable, third time, wichtig, inakzeptabel, inacceptable, inadmissible, "
        "inaceptable, inaceitável, niedopuszczalne, nepřijatelné, kabul edilemez, απαράδεκτο, "
        "возмут, важно, неприпустимо, غير مقبول, לא מקובל, غیرقابل قبول, बहुत परेशान, ไม่พอใจ, "
        "投诉, 非常不满, 困って, 불만, không chấp nhận"
    ),
    "low": _words(
        "no rush, no hurry, whenever you, keine eile, eilt nicht, pas urgent, sin prisa, "
        "sem pressa, bez pośpiechu, nespěchá, acelesi yok, acelem yok, χωρίς βιασύνη, не срочно, "
        "не спішно, ليس مستعجلا, לא דחוף, عجله‌ای نیست, जल्दी नहीं, ไม่รีบ, 不急, 急ぎません, "
        "급하지 않, không gấp"
    ),
    "refund": _words(
        "refund, money back, rimborso, rückerstattung, geld zurück, erstattung, rembours, "
        "reembolso, devolución, zwrot pieniędzy, zwrotu, vrácení peněz, para iade, iade, "
        "επιστροφή χρημάτων, возврат, вернуть деньги, верните, повернення коштів, поверніть, "
        "استرداد, החזר, بازگشت وجه, रिफंड, पैसे वापस, คืนเงิน, 退款, 退钱, 返金, 환불, hoàn tiền"
    ),
    "praise": _words("love, great, thank you so much, wunderbar, merci beaucoup, 😍, ❤, 🎉, 🥰"),
}

# Common words that tell the languages with Latin letters apart.
STOP_WORDS: dict[str, frozenset[str]] = {
    "en": _words("the, and, is, for, you, my, have, with, this, not, please, was"),
    "de": _words("der, die, das, und, ist, nicht, ich, mit, bitte, für, ein, auf, von"),
    "fr": _words("le, la, les, et, est, pas, je, vous, avec, pour, une, des, mon, votre"),
    "es": _words("el, la, los, y, es, no, con, para, una, que, mi, por, su, del"),
    "pt": _words("o, os, e, não, com, para, uma, que, meu, minha, por, do, da, em"),
    "it": _words("il, gli, e, non, con, per, una, che, mio, di, della, sono"),
    "nl": _words("de, het, een, en, niet, ik, met, voor, van, mijn, is"),
    "pl": _words("i, nie, się, na, do, jest, w, z, proszę, mój, od, za"),
    "cs": _words("a, ne, se, na, je, v, z, prosím, můj, od, za, jsem, že"),
    "tr": _words("ve, bir, bu, için, ile, çok, değil, lütfen, benim, ama, da, de"),
    "vi": _words("và, là, của, tôi, không, cho, với, một, các, đã, xin"),
    "sv": _words("och, är, inte, jag, med, för, ett, en, på, till"),
}
